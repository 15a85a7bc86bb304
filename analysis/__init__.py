"""Pictures, traces and tables of simulation reports and plain records. Knows nothing of torch."""
