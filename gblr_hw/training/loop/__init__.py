"""A plain deterministic training loop: batches, hooks, processes, runs on disk."""
