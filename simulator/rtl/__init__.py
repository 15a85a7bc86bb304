"""The machine as hardware: Amaranth components that follow the manual (docs/machine.md)."""
