"""Ranges of int8 activations, fitted on example inputs."""
