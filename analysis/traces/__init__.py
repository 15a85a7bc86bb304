"""Execution traces as files that Perfetto opens."""
