"""The units of the accelerator, one a file, and the accelerator that wires them together."""
