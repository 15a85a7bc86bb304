"""Checkpoints on disk: our own format, the published layout, plain state dicts."""
