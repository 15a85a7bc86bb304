"""Training for the accelerator: data, a small vision transformer, a plain loop, penalties with targets, projection."""
