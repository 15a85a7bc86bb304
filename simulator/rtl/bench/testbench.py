"""The accelerator with its memory model, and their ports for a simulation."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal

from simulator.rtl.base.dram_model import DramModel
from simulator.rtl.base.sizes import Sizes
from simulator.rtl.units.accelerator import Accelerator


class Testbench(Elaboratable):
    """One accelerator of ``sizes`` behind a memory channel whose bandwidth and latency are inputs."""

    def __init__(self, sizes: Sizes, *, cell_instances: bool) -> None:
        self.sizes = sizes
        self.accelerator = Accelerator(sizes, cell_instances=cell_instances)
        self.dram = DramModel(sizes.machine.dram.burst_bytes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator, m.submodules.dram = self.accelerator, self.dram
        dma, dram = self.accelerator.dma, self.dram
        m.d.comb += [
            dram.start.eq(dma.start),
            dram.bursts.eq(dma.bursts),
            dma.free.eq(dram.free),
            dma.respond.eq(dram.respond),
            dma.respond_last.eq(dram.respond_last),
        ]
        return m

    def ports(self) -> list[Signal]:
        """Every port of the test bench."""
        return [*self.accelerator.ports(), self.dram.bytes_per_kilocycle, self.dram.latency_cycles]
