"""Clipping and rescaling of gradients. One method is one file, ending in METHOD."""
