"""Conversion of a model layer by layer: what it runs, what it measures there, and how tiles are shared for it."""
