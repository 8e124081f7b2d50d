"""In which precision the mathematics is done, whatever torch.autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocasts(x: Tensor) -> bool:
    """Whether torch.autocast is on for x's device: it would round products of matrices to half precision."""
    kind = "cpu" if x.is_cpu else x.device.type  # asking a device for its name takes longer
    return kind != "meta" and torch.is_autocast_enabled(kind)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Within it torch.autocast is off for x's device."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()
