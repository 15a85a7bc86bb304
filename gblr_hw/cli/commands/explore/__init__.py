"""Commands that compare: many machines, two programs."""
