"""A small residual network with faults planted in it, for `normcore.audit` to find."""

import torch
from torch import Tensor, nn

from normcore.audit import AuditReport, audit


class Block(nn.Module):
    """A residual block whose first convolution has a bias that the norm erases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels, momentum=0.99)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(y))).relu()


def planted() -> nn.Module:
    """The network: the last norm meets one pixel."""
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.GroupNorm(32, 32), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(stem, Block(32), head)


def audited() -> AuditReport:
    """What is found on it with a batch of four."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return audit(planted(), torch.randn(4, 3, 16, 16))
