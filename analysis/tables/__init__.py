"""Plain records of measured networks, their fronts, and rows of values as text."""
