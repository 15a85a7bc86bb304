"""Layers whose ranks feed ranks: packed into MIX tiles, in memory by turns, cut into stages."""
