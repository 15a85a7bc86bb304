"""The bench that runs the hardware: Verilog, co-simulation, agreement with engine and execution."""
