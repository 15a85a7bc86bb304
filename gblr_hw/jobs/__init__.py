"""Calls that do not hang on each other, and where they are made."""
