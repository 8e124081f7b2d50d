"""`make bench`: every number of the README, printed as ratios that were measured side by side in one run."""

import platform

import torch

from benchmarks import clipping, engine, pages, race, visitors

system = f"{torch.get_num_threads()} threads, {platform.machine()}, Python {platform.python_version()}"
print(f"torch {torch.__version__}, {system}")
engine.report()
clipping.report()
race.report()
visitors.report()
race.behind_the_page()  # what needs a browser comes last
pages.report()
