"""Operators that lowering functions build: products, attention, joins, vector work, outputs."""
