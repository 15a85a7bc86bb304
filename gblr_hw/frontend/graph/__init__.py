"""The operator graph under construction: layouts, values, the builder, lowering functions by name."""
