"""The passes over one layer, in the order of their numbers."""
