"""Verilog of a machine's test bench and accelerator, as text."""

from __future__ import annotations

import re

from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Signal

from simulator.machine.machine import Machine
from simulator.rtl.base.sizes import Sizes
from simulator.rtl.bench.testbench import Testbench
from simulator.rtl.units.accelerator import Accelerator
from simulator.rtl.units.processing_element import PROCESSING_ELEMENT, CellPorts, ProcessingElement


def testbench_verilog(machine: Machine, *, mix: bool = True) -> str:
    """The accelerator for ``machine`` with its memory model, module "testbench", and the array's cell. ``mix``: as in
    ``Sizes``.
    """
    bench = Testbench(Sizes(machine, mix), cell_instances=True)
    return _text(bench, "testbench", bench.ports()) + cell_verilog(machine)


def accelerator_verilog(machine: Machine) -> str:
    """The accelerator for ``machine`` alone, module "accelerator", and the array's cell."""
    top = Accelerator(Sizes(machine), cell_instances=True)
    return _text(top, "accelerator", [*top.ports(), *top.dma.channel_ports()]) + cell_verilog(machine)


def cell_verilog(machine: Machine) -> str:
    """The array's cell, module "processing_element"."""
    sizes = Sizes(machine)
    ports = CellPorts(sizes.weight_bits, sizes.code_bits, sizes.partial_bits, sizes.narrow_rows)
    return _text(ProcessingElement(ports), PROCESSING_ELEMENT, ports.all())


# Memories of silicon power up with anything in them, and programs read nothing that they have not written.
_MEMORY_CONTENTS = re.compile(r"  initial begin\n(?:    \S+ ?\[\d+\] = [^\n]*\n)+  end\n")


def _text(top: Elaboratable, name: str, ports: list[Signal]) -> str:
    text = str(verilog.convert(top, name=name, ports=ports, strip_internal_attrs=True, emit_src=False))
    return _MEMORY_CONTENTS.sub("", text)
