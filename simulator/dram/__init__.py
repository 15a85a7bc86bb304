"""DRAM as banks and rows: standards' timing parameters, address mappings, and a controller that keeps their rules."""
