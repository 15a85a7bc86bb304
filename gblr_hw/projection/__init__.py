"""Projection of structures onto a budget of tiles."""
