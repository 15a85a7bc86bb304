"""Torch modules of structured layers, and replacing the linear layers of a model with them."""
