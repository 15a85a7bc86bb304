"""What commands work on: a checkpoint, a known network or a user's own code, and batches of its inputs."""
