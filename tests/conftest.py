"""Settings that every test shares."""

from collections.abc import Iterator

import pytest
import torch
import torchvision_names
from hypothesis import settings

from normcore.figures import assemble

torch.set_num_threads(1)  # small tensors, and as many test runs side by side as there are cores
torchvision_names.declare()  # before anything imports torchvision

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def figures_are_checked() -> Iterator[None]:
    """Has Plotly check every value of every figure that is drawn here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "CHECKED", True)
        yield
