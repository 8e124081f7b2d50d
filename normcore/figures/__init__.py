"""Figures for a notebook or the app: arrays in, a Plotly figure out."""

from normcore.figures.blocks import Axis, Blocks, figure
from normcore.figures.regions import element, region_blocks

__all__ = ["Axis", "Blocks", "element", "figure", "region_blocks"]
