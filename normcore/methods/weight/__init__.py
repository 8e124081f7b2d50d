"""Normalization of weights: reparametrizations of a module's parameter. One method is one file, ending in METHOD."""
