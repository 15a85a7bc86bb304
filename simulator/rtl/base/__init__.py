"""What all hardware units share: sizes, instruction words, the requantiser, the memory model, the tools."""
