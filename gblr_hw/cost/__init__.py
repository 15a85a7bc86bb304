"""The differentiable cost of a model on a machine."""
