"""The race engine beside the loop that everybody writes, and beside itself behind the page."""

import time
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.pages import ROOT, chromium, open_page, serve
from normcore.lab.nets import MODELS, Plan, build
from normcore.lab.race import Race
from normcore.lab.tasks import data

FAMILIES: dict[str, dict[str, Any]] = {
    "mlp": {"task": "threshold_sum", "width": 50, "seeds": 16, "norms": (None, "batch_norm", "layer_norm")},
    "cnn": {"task": "digits", "width": 16, "seeds": 4, "norms": (None, "batch_norm", "group_norm")},
    "residual_cnn": {"task": "digits", "width": 16, "seeds": 4, "norms": (None, "batch_norm", "group_norm")},
    "rnn": {"task": "adding", "width": 16, "seeds": 4, "norms": (None, "layer_norm")},
    "lstm": {"task": "memory", "width": 16, "seeds": 4, "norms": (None, "layer_norm")},
    "gru": {"task": "adding", "width": 16, "seeds": 4, "norms": (None, "layer_norm")},
    "transformer": {"task": "memory", "width": 32, "seeds": 4, "norms": (None, "layer_norm")},
}
SECONDS = 2.0
"""How long the two of one row take turns."""
PIECE = 5
"""Steps of one turn."""
ROUNDS = 5
"""How often the browser and the engine alone race in turns."""


def report() -> None:
    """Print how many model steps a second a race makes, as a multiple of a loop over a DataLoader."""
    print("\nSteps of all seeds in one second, as a multiple of a plain loop over a DataLoader (one thread)\n")
    print("| model | seeds | norm | race / plain loop |\n|---|---|---|---|")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the server has it
    for model, told in FAMILIES.items():
        for norm in told["norms"]:
            ratio = _ratio(model, norm, told["task"], told["width"], told["seeds"])
            print(f"| {MODELS[model].name} | {told['seeds']} | {norm or 'none'} | {ratio:.1f} |", flush=True)
    torch.set_num_threads(threads)


def _ratio(model: str, norm: str | None, task: str, width: int, seeds: int) -> float:
    """The race and the loop take turns; each seed's step counts as one."""
    race = Race(task, model, [norm], seeds=seeds, steps=10**6, evaluate_every=10**6, width=width, batch_size=64)
    loop = _plain(model, norm, task, width)
    for _ in range(3):
        next(race)
        next(loop)
    spent, made = [0.0, 0.0], [0, 0]
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        for i, (steps, count) in enumerate(((race, seeds), (loop, 1))):
            start = time.perf_counter()
            for _ in range(PIECE):
                next(steps)
            spent[i] += time.perf_counter() - start
            made[i] += PIECE * count
    return made[0] / spent[0] / (made[1] / spent[1])


def _plain(model: str, norm: str | None, task: str, width: int) -> Any:
    """The loop that everybody writes, one net, a step at a time."""
    examples = data(task)
    net = build(examples, Plan(model, norm, width=width), 0).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(examples.x, examples.y), batch_size=64, shuffle=True)
    criterion = nn.CrossEntropyLoss() if examples.classes else nn.MSELoss()
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            answer = net(x)
            criterion(answer if examples.classes else answer[:, 0], y).backward()
            optimizer.step()
            yield


def behind_the_page() -> None:
    """Print how long a whole race takes in a browser, as a multiple of the same race by the engine alone, in turns."""
    torch.set_num_threads(1)
    alone, shown = [], []
    with chromium() as browser, serve(str(ROOT / "app.py")) as address:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for _ in Race(seeds=12, steps=800, evaluate_every=20):
                pass
            alone.append(time.perf_counter() - begun)
            page = open_page(browser, f"{address}/race?seeds=12&steps=800")
            begun = time.perf_counter()
            page.locator(".st-key-go button").click()
            page.get_by_text("Finished").wait_for(timeout=300_000)
            shown.append(time.perf_counter() - begun)
            page.close()
    ratio = median(shown) / median(alone)
    print(f"\n3 contestants × 12 seeds × 800 steps in the browser: {ratio:.2f} × the engine alone.")
