"""One network on many machines, in many sizes: the points of a design space, measured and kept."""
