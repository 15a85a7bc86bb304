"""SCALE-Sim's way of counting cycles, and its topology files."""
