"""Normalization of activations. One method is one file, ending in METHOD."""
