"""Cycles: durations, the fast engine and its reference, accounts of causes, events and reports."""
