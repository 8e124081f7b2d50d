"""Figures for a notebook or the app: arrays in, a Plotly figure out."""
