"""Weights on grids of few bits: the grids, steps for them, and rounding to the nearest code."""
