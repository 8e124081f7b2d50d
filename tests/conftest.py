"""Settings that every test shares."""

import torch
import torchvision_names
from hypothesis import settings

torch.set_num_threads(1)  # small tensors, and as many test runs side by side as there are cores
torchvision_names.declare()  # before anything imports torchvision

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")
