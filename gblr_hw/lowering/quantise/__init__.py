"""Codes of weights: which tiles are narrow, and steps for them."""
