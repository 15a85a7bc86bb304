"""Networks on many machines, in many sizes and structures: the points of a design space, measured and kept."""
