"""Published accelerators that a machine's peak and energy are held against, one entry a chip, with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedChip:
    """A chip as its authors report it, without DRAM. peak_pj_per_mac: power over the peak rate. typical_pj_per_mac:
    power over the rate that a real network got. differs: why a machine of ours is not the same thing.
    """

    name: str
    node_nm: int
    operands: str
    macs: int
    peak_tops: float
    area_mm2: float
    peak_pj_per_mac: float
    typical_pj_per_mac: float
    differs: str
    source: str


CHIPS = (
    PublishedChip(
        "TPU v1", 28, "int8", 65536, 92.0, 331.0,
        40.0 / 46.0, 40.0 / (14.1 / 2),
        "its power is that of a whole die, interfaces to host and DRAM included, 28 W of it when idle; its typical "
        "rate is 15 % of its peak, where the reference layer keeps our array busy",
        "Jouppi et al., ISCA 2017: 92 TOPS, at most 331 mm2, 40 W a busy die; typical: CNN1 at 14.1 TOPS",
    ),
    PublishedChip(
        "Eyeriss", 65, "int16", 168, 0.0672, 12.25,
        278e-3 / 33.6e-3, 278e-3 / 23.1e-3,
        "its multiplications are of 16 bits, four times the partial products, and each of its cells has half a "
        "kilobyte of registers",
        "Chen et al., JSSC 2017: 33.6 GMAC/s, 12.25 mm2, 278 mW on AlexNet's convolutions at 34.7 images a second "
        "(23.1 GMAC/s)",
    ),
    PublishedChip(
        "Simba", 16, "int8", 1024, 4.01, 6.0,
        0.22, 2 / 6.1,
        "its best figure is taken at its lowest voltage, 0.42 V, where the tables are at the nominal one",
        "Zimmer et al., VLSI 2019: 4.01 TOPS, 6 mm2, 0.11 pJ an operation at best; typical: Shao et al., MICRO 2019, "
        "6.1 TOPS/W for 36 chips at best",
    ),
)  # fmt: skip
