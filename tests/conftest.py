"""Settings that every test shares."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # small tensors, and as many test runs side by side as there are cores

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")
