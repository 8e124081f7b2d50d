"""Failures of what a layer remembers: nothing yet, or too little."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from normcore.diagnose import diagnose
from normcore.lab.failures.record import Failure, Reveal, closest, deviation, generator, normal
from normcore.registry import METHODS

STEPS = 60


def _too_early() -> Reveal:
    chance, norm = generator(), METHODS["batch_norm"]
    fresh = 5 + 3 * normal(512, 8, chance=chance)
    state: Mapping[str, Tensor] = {}
    means, deviations = [], []
    for _ in range(STEPS + 1):
        y = norm(fresh, "vector", training=False, state=state).y
        means.append(float(y.mean()))
        deviations.append(float(deviation(y, 0).mean()))
        state = norm(5 + 3 * normal(64, 8, chance=chance), "vector", state=state).state
    return Reveal(
        f"Before the first step mean {means[0]:.2f} and deviation {deviations[0]:.2f} come out. After {STEPS} steps "
        f"with momentum 0.1 it is {means[-1]:.2f} and {deviations[-1]:.2f}.",
        closest(means[0], (0.0, 5.0)),
        torch.arange(STEPS + 1).numpy(),
        {
            "mean of the output": np.array(means),
            "deviation of the output": np.array(deviations),
        },
    )


CHANNELS = 512


def _complement() -> Reveal:
    chance, norm = generator(), METHODS["batch_norm"]
    batches = [normal(8, CHANNELS, chance=chance) for _ in range(STEPS)]
    paths: dict[float, list[Tensor]] = {0.1: [], 0.9: []}
    for momentum, path in paths.items():
        state: Mapping[str, Tensor] = {}
        for batch in batches:
            state = norm(batch, "vector", momentum=momentum, state=state).state
            path.append(state["running_mean"])
    single = torch.stack([batch.mean(0) for batch in batches]).var()
    rests = {momentum: float(single / path[-1].var()) for momentum, path in paths.items()}
    return Reveal(
        f"With momentum 0.9 the running mean is as unsteady as an average of {rests[0.9]:.1f} batches; with 0.1, of "
        f"{rests[0.1]:.0f}.",
        closest(rests[0.9], (19.0, 1.0, float(STEPS))),
        torch.arange(1, STEPS + 1).numpy(),
        {
            "momentum 0.9": torch.stack(paths[0.9])[:, 0].numpy(),
            "momentum 0.1": torch.stack(paths[0.1])[:, 0].numpy(),
            "true mean": torch.zeros(STEPS).numpy(),
        },
    )


FAILURES = (
    Failure(
        "too_early",
        "Evaluation before training",
        "A new BatchNorm layer is switched to evaluation before any training step. Data of mean 5 and deviation 3 goes "
        "in. What comes out?",
        ("Mean 0 and deviation 1", "Mean 5 and deviation 3", "An error: there are no statistics yet"),
        _too_early,
        ("training steps taken before", "mean or deviation of the evaluation output"),
        "The running statistics of a new layer are mean 0 and variance 1. Dividing by them changes nothing, and no "
        "error says so. With a momentum of 0.1 it takes some tens of steps until they fit.",
        "Train first, or show the layer a few batches in training mode. After loading weights, look whether "
        "num_batches_tracked is above 0.",
        "import torch\n"
        "import normcore\n\n"
        "model = torch.nn.Sequential(torch.nn.BatchNorm1d(8)).eval()\n"
        "x = 5 + 3 * torch.randn(512, 8)\n"
        "print(model(x).mean(), model(x).std())\n"
        "print(normcore.audit(model, x))",
        "batch.py",
        {"about": "Over time"},
    ),
    Failure(
        "complement",
        "Momentum taken for its complement",
        "A paper says momentum 0.9, and so a BatchNorm of PyTorch is given momentum=0.9. On about how many batches do "
        "its statistics rest?",
        ("About 20", "About 1", "All of them"),
        _complement,
        ("training step", "running mean of one channel"),
        "In PyTorch, and here, momentum is the weight of the new value; in Keras, JAX and most papers that of the old "
        "one. Their 0.9 is 0.1 here.",
        "Write 1 − momentum when a setting changes libraries; the code tabs of each method's page do.",
        "import torch\n"
        "import normcore\n\n"
        "model = torch.nn.Sequential(torch.nn.BatchNorm1d(8, momentum=0.9))\n"
        "print(normcore.audit(model, torch.randn(32, 8)))",
        "batch.py",
        {"about": "Over time", "momentum": "0.9"},
        found=lambda: diagnose("batch_norm", (32, 8), "vector", momentum=0.9),
    ),
)
