"""The operator graph of a whole network: its parts, its file format, and what it computes."""
