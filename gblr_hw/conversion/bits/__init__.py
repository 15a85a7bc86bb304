"""Weights on grids of few bits: the grids, and rounding to them."""
