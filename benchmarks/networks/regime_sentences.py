"""Why a structure pays in one regime and not in another: sentences whose figures are those of the measured programs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from analysis.pictures.family_marks import REFERENCE
from benchmarks.networks.regime_tables import FOUR_BITS, STRUCTURES, Row, shares_of, span, whole_cases

Program = Mapping[str, Row]  # a row of each way

FEW = ("prefill 16 x 1", "decode x 1")
TOGETHER = ("decode x 8",)
MANY = ("prefill 16 x 8", "prefill 197 x 1", "prefill 1024 x 1")
NARROW_ARRAYS = ("edge-16", "mid-32", "plain-32")
MACHINES = (*NARROW_ARRAYS, "cloud-128")
SCATTER = ("edge-16", "mid-32")


class Programs:
    """Measured programs, by what they were measured on."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.cases = whole_cases(rows)

    def of(
        self, regimes: Collection[str], machines: Collection[str], networks: Collection[str] | None = None
    ) -> list[Program]:
        """Those of some regimes, machines and networks."""
        return [
            mine
            for (network, regime, batch, machine), mine in self.cases.items()
            if f"{regime} x {batch}" in regimes and machine in machines and network in (networks or (network,))
        ]


def cycles(programs: Sequence[Program], *ways: str) -> str:
    """Over dense: least and most."""
    return span([shares_of(mine)[way] for mine in programs for way in ways])


def over_dense(programs: Sequence[Program], way: str, what: Callable[[Row], float]) -> str:
    """A figure of a way's programs over that of dense: least and most."""
    return span([what(mine[way]) / what(mine[REFERENCE]) for mine in programs])


def per_cent(programs: Sequence[Program], what: Callable[[Row], float]) -> str:
    """A share of the dense programs: least and most."""
    shares = [100 * what(mine[REFERENCE]) for mine in programs]
    ends = dict.fromkeys(f"{end(shares):.0f}" for end in (min, max))
    return f"{' to '.join(ends)} %"


def beside_linears(row: Row) -> float:
    """Cycles of what is no linear: attention, norms, copies."""
    return float((1 - row["linear_share"]) * row["latency_cycles"])


def preload(row: Row) -> float:
    """The share of the cycles in which the array waits for weights to enter it."""
    return float(row["causes"]["weight_preload"] / row["latency_cycles"])


def reasons_text(rows: Sequence[Row]) -> str:
    """All sentences."""
    programs = Programs(rows)
    parts = (_few, _together, _many, _cloud, _plain, _monarch, _parts)
    return "".join(f"- {part(programs)}\n" for part in parts)


def _few(programs: Programs) -> str:
    roof = per_cent(programs.of(FEW, NARROW_ARRAYS), lambda row: row["roofline_fraction"])
    scatter = programs.of(FEW, SCATTER)
    moved = over_dense(scatter, FOUR_BITS, lambda row: row["dram_bytes"])
    return (
        f"**One sequence of one token or sixteen** ({', '.join(NARROW_ARRAYS)}): bytes decide, as dense programs run "
        f"at {roof} of the memory roof. Every structure pays on edge-16 and mid-32, with "
        f"{cycles(scatter, *STRUCTURES)} of dense's cycles; four bits move {moved} of its bytes and take "
        f"{cycles(scatter, FOUR_BITS)}."
    )


def _together(programs: Programs) -> str:
    told = []
    for network, why in (
        ("GPT-2", "each sequence brings keys and values of 12 heads, which nothing here makes smaller"),
        ("TinyLlama", "32 heads share four keys and values"),
    ):
        mine = programs.of(TOGETHER, SCATTER, (network,))
        told.append(
            f"{network}'s linears are {per_cent(mine, lambda row: row['linear_share'])} of dense's cycles ({why}); "
            f"structures take {cycles(mine, *STRUCTURES)}, four bits {cycles(mine, FOUR_BITS)}."
        )
    return f"**Eight sequences decode** (edge-16, mid-32): structures pay as far as linears go. {' '.join(told)}"


def _many(programs: Programs) -> str:
    scatter = programs.of(MANY, SCATTER)
    each = ", ".join(f"{way} {cycles(scatter, way)}" for way in STRUCTURES if way != "Monarch")
    longest = per_cent(programs.of(MANY[-1:], SCATTER), lambda row: row["linear_share"])
    least = min(scatter, key=lambda mine: shares_of(mine)[FOUR_BITS])[REFERENCE]
    waits = least["causes"]["wait_weights"] / least["latency_cycles"]
    return (
        f"**From 128 rows on** (edge-16, mid-32): multiplications decide, of which four bits save none. They take "
        f"{cycles(scatter, FOUR_BITS)} of dense's cycles, the least in {least['network']}'s {least['regime']} x "
        f"{least['batch']} on {least['machine']}, whose array waits for weights in {100 * waits:.0f} % of dense's "
        f"cycles. Structures but Monarch pay: {each}; the least at 1,024 tokens, where linears are {longest} of "
        f"dense's cycles."
    )


def _cloud(programs: Programs) -> str:
    waiting = per_cent(programs.of(FEW, ("cloud-128",)), preload)
    few, many = (programs.of(regimes, ("cloud-128",), ("MiniLM",)) for regimes in (FEW, MANY))
    tiles = ", ".join(f"{way} {over_dense(few, way, lambda row: row['tiles'])}" for way in STRUCTURES)
    each = ", ".join(f"{way} {cycles(few, way)}" for way in STRUCTURES)
    linears = per_cent(many, lambda row: row["linear_share"])
    return (
        f"**cloud-128** waits for weights to enter the array in {waiting} of a dense program's cycles, at one token or "
        f"sixteen: a tile takes 128 cycles for that (64 in four bits), however few rows pass. Tiles decide there, not "
        f"bytes or multiplications, and layers 384 wide have few that a structure could leave out. Of MiniLM's tiles "
        f"{tiles} are left; cycles at 16 tokens are {each} (four bits {cycles(few, FOUR_BITS)}). With more tokens "
        f"linears are {linears} of its dense cycles, and structures take {cycles(many, *STRUCTURES)}, four bits "
        f"{cycles(many, FOUR_BITS)}."
    )


def _plain(programs: Programs) -> str:
    every = (*FEW, *TOGETHER, *MANY)
    plain, mid = programs.of(every, ("plain-32",)), programs.of(every, ("mid-32",))

    def beside(*ways: str) -> str:
        return ", ".join(f"{way} {cycles(plain, way)} ({cycles(mid, way)} on mid-32)" for way in ways)

    return (
        f"**plain-32** has no permutation network. Low rank and block sparse do without: {beside(*STRUCTURES[:2])}. "
        f"The others pay less: {beside(*STRUCTURES[2:])}. Ranks are read and written in groups of 32 that share their "
        f"chunks there, and BLAST has no MIX tiles."
    )


def _monarch(programs: Programs) -> str:
    prefill, decode = (programs.of(regimes, MACHINES) for regimes in ((FEW[0], *MANY), (FEW[1], *TOGETHER)))
    others = [way for way in STRUCTURES if way != "Monarch"]
    theirs = [beside_linears(mine[way]) / beside_linears(mine[REFERENCE]) for mine in prefill for way in others]
    slower = {
        f"{mine[REFERENCE]['network']}'s {mine[REFERENCE]['regime']} x {mine[REFERENCE]['batch']}"
        for mine in prefill
        if shares_of(mine)["Monarch"] >= 1
    }
    where = f": on some presets it is slower than dense in {' and '.join(sorted(slower))}" if slower else ""
    return (
        f"**Monarch** pays in decode as others do, and less in prefill, with {cycles(prefill, 'Monarch')} of dense's "
        f"cycles{where}. Its outputs lie in another order, so that values are copied into their places before "
        f"attention and before the next layer: what is no linear takes "
        f"{over_dense(prefill, 'Monarch', beside_linears)} times dense's cycles in prefill ({span(theirs)} with the "
        f"other structures) and {over_dense(decode, 'Monarch', beside_linears)} times in decode."
    )


def _parts(programs: Programs) -> str:
    found = []
    for network in ("GPT-2", "TinyLlama"):
        edge, mid = (programs.of(("decode x 1",), (machine,), (network,)) for machine in SCATTER)
        (more,) = (
            a["low rank"]["multiplications"] / b["low rank"]["multiplications"] for a, b in zip(edge, mid, strict=True)
        )
        found.append(f"{more:.2f} ({network})")
    return (
        f"**edge-16** has room for the parameters of few outputs: wider layers run in parts, each of which works out "
        f"its ranks again. To decode a token, low rank multiplies {' and '.join(found)} times as often as on mid-32."
    )
