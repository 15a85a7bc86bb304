"""Rounding to few bits that uses the second moments of a layer's inputs."""
