"""Failures of what is in a region: padding, features of unlike scale, too few values for a covariance."""

import torch

from normcore.diagnose import diagnose
from normcore.lab.failures.record import Failure, Reveal, closest, generator, normal
from normcore.registry import METHODS
from normcore.symptoms import own_share

SAMPLES, TOKENS, CHANNELS = 8, 60, 16


def _padding() -> Reveal:
    shares = torch.arange(0, 19, dtype=torch.float64) / 20
    batch, masked = METHODS["batch_norm"], METHODS["masked_batch_norm"]
    tokens = 3 + normal(SAMPLES, TOKENS, CHANNELS)
    kept: dict[str, list[float]] = {name: [] for name in ("mean", "deviation", "masked mean", "masked deviation")}
    used = (0.0, 0.0)
    for share in shares.tolist():
        real = (torch.arange(TOKENS) < round(TOKENS * (1 - share))).expand(SAMPLES, TOKENS)
        x = tokens * real[..., None]
        done = batch(x, "tokens")
        with_mask = masked(x, "tokens", mask=real.double()).y
        for name, y in (("", done.y), ("masked ", with_mask)):
            kept[f"{name}mean"].append(float(y[real].mean()))
            kept[f"{name}deviation"].append(float(y[real].std(0, correction=0).mean()))
        if share == 0.5:
            used = float(done.stats["mean"].mean()), float(done.stats["var"].mean())
    at = shares.tolist().index(0.5)
    names = ("mean, padding counted", "deviation, padding counted", "mean, with a mask", "deviation, with a mask")
    return Reveal(
        f"BatchNorm used a mean of {used[0]:.2f} and a variance of {used[1]:.2f}. The real tokens come out with mean "
        f"{kept['mean'][at]:.2f} and deviation {kept['deviation'][at]:.2f}; with a mask it is "
        f"{abs(kept['masked mean'][at]):.2f} and {kept['masked deviation'][at]:.2f}.",
        min(range(3), key=lambda i: abs(used[0] - (3, 1.5, 1.5)[i]) + abs(used[1] - (1, 2.75, 0.5)[i])),
        100 * shares.numpy(),
        {name: torch.tensor(values).numpy() for name, values in zip(names, kept.values(), strict=True)},
    )


SCALES = torch.logspace(-3, 4, 8, dtype=torch.float64)


def _unlike() -> Reveal:
    x = SCALES * normal(256, 8)
    methods: tuple[tuple[str, dict[str, int]], ...] = (
        ("layer_norm", {}),
        ("group_norm", {"num_groups": 2}),
        ("rms_norm", {}),
        ("batch_norm", {}),
    )
    out = {METHODS[key].name: 100 * own_share(x, METHODS[key](x, "vector", **set_to).y, 1) for key, set_to in methods}
    smallest = {name: float(values[0]) for name, values in out.items()}
    return Reveal(
        f"Of the smallest feature's output, {smallest['LayerNorm']:.2g} % is the feature itself after LayerNorm and "
        f"{smallest['GroupNorm']:.2g} % after GroupNorm with two groups; after BatchNorm, which measures each alone, "
        f"{smallest['BatchNorm']:.3g} %.",
        closest(smallest["LayerNorm"], (100.0, 12.5, 0.0)),
        SCALES.numpy(),
        {name: values.numpy() for name, values in out.items()},
    )


def _singular() -> Reveal:
    counts = torch.tensor([4, 6, 8, 10, 12, 14, 16, 17, 18, 20, 24, 32, 48, 64, 128, 256, 512])
    methods = ("decorrelated_batch_norm", "iter_norm", "batch_norm")
    chance = generator()
    fresh = normal(2048, CHANNELS, 1, chance=chance)
    largest: dict[str, list[float]] = {METHODS[key].name: [] for key in methods}
    for count in counts.tolist():
        seen = normal(count, CHANNELS, 1, chance=chance)
        for key in methods:
            norm = METHODS[key]
            settings = {"num_groups": 1} if norm.default("num_groups") else {}
            state = norm(seen, "signal", momentum=1.0, **settings).state
            y = norm(fresh, "signal", training=False, state=state, **settings).y[..., 0]
            largest[norm.name].append(float(torch.linalg.eigvalsh(torch.cov(y.T, correction=0))[-1].sqrt()))
    at = counts.tolist().index(8)
    name = METHODS["decorrelated_batch_norm"].name
    got = largest[name][at]
    return Reveal(
        f"After a batch with 8 values a channel, {name} stretches new data by {got:.0f} in one direction; IterNorm, "
        f"which takes five steps toward the inverse root, by {largest['IterNorm'][at]:.2g}. With "
        f"{int(counts[-1])} values a channel it is {largest[name][-1]:.2f}.",
        0 if 0.3 < got < 3 else 1 if got > 30 else 2,
        counts.numpy(),
        {name: torch.tensor(values).numpy() for name, values in largest.items()},
    )


def _padded() -> torch.Tensor:
    x = 3 + normal(SAMPLES, TOKENS, CHANNELS)
    x[:, TOKENS // 2 :] = 0
    return x


FAILURES = (
    Failure(
        "padding",
        "Statistics over padding",
        "Half of every sentence is padding, zeros. The real tokens have mean 3 and variance 1. Which mean and variance "
        "does BatchNorm divide by?",
        ("3 and 1, those of the tokens", "1.5 and 2.75", "1.5 and 0.5"),
        _padding,
        ("share of padding (%)", "mean or deviation of the real tokens after it"),
        "Zeros are values like any other. They pull the mean toward 0 and, being far from it, raise the variance; and "
        "how many they are changes from batch to batch with the lengths of other sentences.",
        "Give the norm a mask, or take statistics of every token by itself, as LayerNorm and RMSNorm on tokens do.",
        "import torch\n"
        "import normcore\n\n"
        "x = 3 + torch.randn(8, 60, 16)\n"
        "x[:, 30:] = 0\n"
        "mask = (torch.arange(60) < 30).expand(8, 60).float()\n"
        'print(normcore.layer("batch_norm", 16, layout="tokens")(x)[:, :30].mean())\n'
        'print(normcore.layer("masked_batch_norm", 16, layout="tokens")(x, mask=mask)[:, :30].mean())\n'
        'print(normcore.diagnose("batch_norm", x.shape, "tokens", x=x)[0].sentence)',
        "distributions.py",
        {"input": "padded sentences", "method": ["batch_norm", "masked_batch_norm", "layer_norm"]},
        found=lambda: diagnose("batch_norm", (SAMPLES, TOKENS, CHANNELS), "tokens", x=_padded()),
    ),
    Failure(
        "unlike_scale",
        "Features of unlike scale",
        "Eight features, a price, an age, a rate and so on, have deviations from 0.001 to 10,000 and share a region. "
        "After LayerNorm, how much of the smallest one's output is the feature itself?",
        ("All of it: it is only scaled", "An eighth, its fair share", "Next to nothing"),
        _unlike,
        ("deviation of a feature", "share of its output that is the feature itself (%)"),
        "One mean and one deviation serve the whole region, and the largest feature decides both. What comes out of a "
        "small one is minus the mean over the deviation: an echo of the largest feature.",
        "Scale every feature by itself before: BatchNorm, or constants from the training data. GroupNorm and LayerNorm "
        "are for channels that speak the same unit, as those of a hidden layer do.",
        "import torch\n"
        "import normcore\n\n"
        "x = torch.logspace(-3, 4, 8) * torch.randn(256, 8)\n"
        'for key in ("layer_norm", "group_norm", "batch_norm"):\n'
        '    y = normcore.layer(key, 8, layout="vector")(x)\n'
        "    print(key, torch.corrcoef(torch.stack([x[:, 0], y[:, 0]]))[0, 1].item() ** 2)\n"
        'print(normcore.diagnose("layer_norm", x.shape, "vector", x=x)[0].sentence)',
        "distributions.py",
        {"input": "mixed scales", "layout": "image", "method": ["layer_norm", "group_norm", "batch_norm"]},
        log="x",
        found=lambda: diagnose("group_norm", (256, 8), "vector", x=SCALES * normal(256, 8)),
    ),
    Failure(
        "singular",
        "Whitening without enough values",
        "16 channels are whitened together, from a batch with 8 values in each. What becomes of new data?",
        (
            "It is white: deviation 1 in every direction",
            "Some directions come out a hundred times too large",
            "It comes out as 0",
        ),
        _singular,
        ("values in each channel", "largest deviation of new data, in any direction"),
        "8 values span at most 7 directions of 16. In the others the covariance is 0, and the inverse root of ε alone, "
        "316 for the usual ε, multiplies whatever new data has there.",
        "Whiten fewer channels together (num_groups), with several times as many values as channels; or take IterNorm, "
        "whose few steps leave the smallest directions small.",
        "import torch\n"
        "import normcore\n\n"
        "torch.manual_seed(0)\n"
        "for num_groups in (1, 8):\n"
        "    settings = dict(num_groups=num_groups, momentum=1.0)\n"
        '    norm = normcore.layer("decorrelated_batch_norm", 16, layout="signal", **settings)\n'
        "    norm(torch.randn(8, 16, 1))\n"
        "    print(num_groups, norm.eval()(torch.randn(2048, 16, 1)).std())\n"
        'print(normcore.diagnose("decorrelated_batch_norm", (8, 16, 1), "signal", num_groups=1)[0].sentence)',
        "method.py",
        {"key": "decorrelated_batch_norm", "layout": "signal"},
        log="xy",
        found=lambda: diagnose("decorrelated_batch_norm", (8, 16, 1), "signal", num_groups=1),
    ),
)
