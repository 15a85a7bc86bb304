"""Which operators of a network run together, on how many rows, and where their values lie."""
