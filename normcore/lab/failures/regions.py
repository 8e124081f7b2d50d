"""Failures of regions that are too small or too uniform."""

import torch

from normcore.diagnose import diagnose
from normcore.lab.failures.record import Failure, Reveal, closest, deviation, normal
from normcore.registry import METHODS

FIRST = ["batch_norm", "layer_norm", "instance_norm", "group_norm"]


def _one_value() -> Reveal:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    others = torch.tensor([-1.0, 0.5, 2.0, -0.3, 1.0], dtype=torch.float64).expand(61, 5)
    instance = METHODS["instance_norm"](x.reshape(-1, 1, 1, 1), "image").y.flatten()
    size = METHODS["rms_norm"](x.reshape(-1, 1), "vector").y.flatten()
    layer = METHODS["layer_norm"](torch.cat([x[:, None], others], 1), "vector").y[:, 0]
    spread = float(instance.max() - instance.min())
    answer = 1 if spread < 1e-9 else 2 if torch.allclose(instance, x) else 0
    return Reveal(
        f"Inputs from {float(x[0]):g} to {float(x[-1]):g} all come out as {float(instance[0]):g}. RMSNorm, which "
        f"subtracts no mean, keeps the sign: {float(size[0]):+.0f} or {float(size[-1]):+.0f}.",
        answer,
        x.numpy(),
        {
            "InstanceNorm on 1 × 1 pixel": instance.numpy(),
            "RMSNorm on one channel": size.numpy(),
            "LayerNorm on six channels": layer.numpy(),
        },
    )


def _batch_of_two() -> Reveal:
    gap = torch.logspace(-4, 3, 71, dtype=torch.float64)
    pair = torch.stack([torch.ones_like(gap), 1 + gap])
    two = METHODS["batch_norm"](pair, "vector").y
    seven = normal(7).sort().values[:, None].expand(7, len(gap))
    eight = METHODS["batch_norm"](torch.cat([seven, gap[None]]), "vector").y[-1]
    at = [int((gap - value).abs().argmin()) for value in (1.0, 1000.0)]
    far = [float(two[1, i]) for i in at]
    answer = 0 if abs(far[0] - far[1]) < 1e-3 else 1 if far[1] > 100 else 2
    return Reveal(
        f"Whether they differ by 1 or by 1,000, the larger becomes {far[0]:+.3f} and the smaller "
        f"{float(two[0, at[0]]):+.3f}. Where they differ by {float(gap[0]):g}, ε leaves {float(two[1, 0]):.3f} of it.",
        answer,
        gap.numpy(),
        {
            "larger of two": two[1].numpy(),
            "smaller of two": two[0].numpy(),
            "the same among seven others": eight.numpy(),
        },
    )


def _constant() -> Reveal:
    sigma = torch.logspace(-8, 1, 73, dtype=torch.float64)
    noise = normal(64)
    x = ((noise - noise.mean()) / deviation(noise))[:, None] * sigma
    out = {eps: deviation(METHODS["batch_norm"](x, "vector", eps=eps).y, 0) for eps in (1e-3, 1e-5, 1e-8)}
    left = float(out[1e-5][int((sigma - 1e-4).abs().argmin())])
    return Reveal(
        f"With ε = 0.00001, a deviation of 0.0001 becomes {left:.3f}. Its variance is a thousandth of ε.",
        closest(left, (1.0, 0.03, 0.0)),
        sigma.numpy(),
        {f"ε = {eps:g}": values.numpy() for eps, values in out.items()},
    )


def _epsilon_place() -> Reveal:
    sigma = torch.logspace(-8, 1, 73, dtype=torch.float64)
    noise = normal(64)
    x = ((noise - noise.mean()) / deviation(noise)) * sigma[:, None]
    norm = METHODS["bert_layer_norm"]
    out = {
        place: deviation(norm(x, "vector", eps=1e-5, unbiased=False, eps_place=place).y, 1)
        for place in ("inside", "outside")
    }
    at = int((sigma - 1e-4).abs().argmin())
    inside, outside = (float(values[at]) for values in out.values())
    answer = 2 if abs(inside - outside) < 1e-3 else 0 if inside > outside else 1
    return Reveal(
        f"A deviation of 0.0001 becomes {inside:.2g} with ε inside the root and {outside:.2g} outside, "
        f"{outside / inside:.0f} times as much.",
        answer,
        sigma.numpy(),
        {f"ε {place} the root": values.numpy() for place, values in out.items()},
    )


FAILURES = (
    Failure(
        "one_value",
        "One value per region",
        "InstanceNorm meets a picture of a single pixel, after a global average pooling, say. What comes out?",
        ("Only the sign of the value", "The same number, whatever the value", "The value itself"),
        _one_value,
        ("value that goes in", "value that comes out"),
        "The mean of one value is that value. Subtracting it leaves 0, with gradient 0: the network behind sees the "
        "bias alone, and the layers before it stop learning.",
        "Normalize before the pooling, or take a method whose regions hold more values: LayerNorm over the channels.",
        "import torch\n"
        "import normcore\n\n"
        "x = torch.randn(8, 6, 1, 1)\n"
        'print(normcore.layer("instance_norm", 6)(x).abs().max())  # 0\n'
        'print(normcore.diagnose("instance_norm", x.shape)[0].sentence)\n'
        'print(normcore.layer("layer_norm", 6)(x).abs().max())  # the signal is there',
        "regions.py",
        {"layout": "image", "H": "1", "W": "1", "method": FIRST},
        found=lambda: diagnose("instance_norm", (8, 6, 1, 1), "image"),
    ),
    Failure(
        "batch_of_two",
        "A batch of two",
        "BatchNorm gets a batch of two vectors. What is left of each channel's two values?",
        ("+1 and −1: only which one is larger", "Their difference, halved", "Something between −3 and 3, as always"),
        _batch_of_two,
        ("difference of the two values", "value that comes out"),
        "Two values lie at equal distance from their mean, and dividing by that distance makes it 1. How much they "
        "differ is lost, unless ε is large beside it.",
        "Take a larger batch, or a method that does not look at the batch: LayerNorm, GroupNorm.",
        "import torch\n"
        "import normcore\n\n"
        "x = torch.tensor([[1.0, 5.0], [2.0, -900.0]])\n"
        'print(normcore.layer("batch_norm", 2, layout="vector")(x))  # +1 and −1\n'
        "x = torch.randn(2, 6)\n"
        'print(normcore.layer("layer_norm", 6, layout="vector")(x))',
        "regions.py",
        {"layout": "vector", "N": "2", "method": ["batch_norm", "layer_norm"]},
        log="x",
        found=lambda: diagnose("batch_norm", (2, 6), "vector"),
    ),
    Failure(
        "constant",
        "A constant region and ε",
        "A channel hardly varies: its deviation is 0.0001. ε is 0.00001, the usual. What deviation has it after "
        "BatchNorm?",
        ("1, as every channel", "About 0.03", "Exactly 0"),
        _constant,
        ("deviation that goes in", "deviation that comes out"),
        "ε keeps the division by the deviation finite. Below √ε, which is 0.003 for the usual ε, it wins: the output "
        "shrinks with the input, down to 0 for a constant region.",
        "Scale such channels up before, or take a smaller ε. A region that is constant for good, as of a dead unit, "
        "no ε brings back.",
        "import torch\n"
        "import normcore\n\n"
        "x = 1e-4 * torch.randn(64, 3)\n"
        'print(normcore.layer("batch_norm", 3, layout="vector")(x).std(0))  # about 0.03\n'
        'print(normcore.layer("batch_norm", 3, layout="vector", eps=1e-12)(x).std(0))  # about 1\n'
        'print(normcore.diagnose("batch_norm", x.shape, "vector", x=x)[0].sentence)',
        "method.py",
        {"key": "batch_norm"},
        log="xy",
        found=lambda: diagnose("batch_norm", (64, 3), "vector", x=1e-4 * normal(64, 3)),
    ),
    Failure(
        "epsilon_place",
        "ε inside or outside the root",
        "Two libraries write LayerNorm with the same ε = 0.00001, one adds it to the variance, the other to the "
        "deviation. A region has deviation 0.0001. Which output is larger?",
        ("With ε inside the root", "With ε outside the root", "They are the same"),
        _epsilon_place,
        ("deviation that goes in", "deviation that comes out"),
        "Inside, ε is compared with the variance, the square of the deviation, so that 0.00001 already outweighs a "
        "deviation of 0.003. Outside, it takes a deviation of 0.00001 to feel it.",
        "Say which one is meant when weights change hands; to come from outside to inside, ε has to be squared.",
        "import torch\n"
        "import normcore\n\n"
        "x = 1e-4 * torch.randn(4, 64)\n"
        'for place in ("inside", "outside"):\n'
        '    norm = normcore.layer("bert_layer_norm", 64, layout="vector", eps=1e-5, eps_place=place)\n'
        "    print(place, norm(x).std())",
        "method.py",
        {"key": "bert_layer_norm"},
        log="xy",
        found=lambda: diagnose(
            "bert_layer_norm", (4, 64), "vector", x=1e-4 * normal(4, 64), eps=1e-5, eps_place="inside"
        ),
    ),
)
