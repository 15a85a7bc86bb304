"""The numbers that the hardware computes, instruction by instruction."""
