"""The embedded example: real digits, its networks, tables and pictures."""
