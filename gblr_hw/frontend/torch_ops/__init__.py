"""Lowering functions for PyTorch's operations, by kind."""
