"""Weights of a layer: as stored, as evaluated, and as points of the tile lattice."""
