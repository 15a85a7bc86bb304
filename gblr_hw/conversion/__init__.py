"""Pretrained dense weights become structures: budgets, allocation, order, measurement of inputs."""
