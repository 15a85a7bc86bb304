"""Where points are measured: networks are read, their conversions made once for all points that share them, and what
was measured before is only looked up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from gblr_hw.jobs.executors import Workers
from gblr_hw.sweeps.axes import Settings, machine_at
from gblr_hw.sweeps.conversions import KeptConversions, Wanted, digest_of, made
from gblr_hw.sweeps.journal import Journal
from gblr_hw.sweeps.measure import Row, failed, key_of, measure_task, row_of
from gblr_hw.sweeps.networks import Network, Networks, Source
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine
from simulator.base.errors import InputError

Progress = Callable[[int, int, str], None]
_MOST_WEIGHTS = 1 << 27  # of the networks that are handed to workers together


class Bench:
    """Measures points of some networks; a context: it has workers, and a folder for conversions, while it is open.

    work: folder that keeps points and conversions; without one they last as long as the bench. total: points that will
    be asked for in all, for `progress`, which is called with (done, total, network) after each, and after a conversion.
    """

    def __init__(
        self,
        networks: Networks,
        base: Machine,
        tokens: int,
        *,
        jobs: int,
        scheduler: str | None,
        work: str | Path | None,
        total: int,
        progress: Progress | None,
    ) -> None:
        self._networks, self._base, self._tokens = networks, base, tokens
        self._workers, self._work = Workers(jobs, scheduler), work
        self._journal = Journal(work)
        self._open = ExitStack()
        self._conversions: KeptConversions | None = None
        self._held: tuple[Any, Network] | None = None
        self._total, self._done, self._progress = total, 0, progress

    def __enter__(self) -> Bench:
        self._open.enter_context(self._workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def rows(self, points: Sequence[Settings]) -> list[Row]:
        """A row for each point, in their order."""
        by_network: dict[Any, list[Settings]] = {}
        for settings in points:
            by_network.setdefault(self._networks.asked(settings), []).append(settings)
        keys: dict[int, tuple[str, str]] = {}  # point -> network's name, key
        waiting: list[tuple[Source, list[tuple[str, Settings]]]] = []
        for asked, some in by_network.items():
            network = self._network(asked, some[0])
            named = {id(one): key_of(network.source.digest, self._base, self._tokens, one) for one in some}
            keys |= {place: (network.source.name, key) for place, key in named.items()}
            left = [(named[id(one)], one) for one in some if named[id(one)] not in self._journal.rows]
            self._done += len(some) - len(left)
            for part in self._as_asked(network, left):
                waiting.append(part)
                if sum(_size(source.layers) for source, _ in waiting) > _MOST_WEIGHTS:
                    self._measure(waiting)
                    waiting = []
        self._measure(waiting)
        found = [(*keys[id(settings)], settings) for settings in points]
        return [row_of(name, settings, self._journal.rows[key]) for name, key, settings in found]

    def _network(self, asked: Any, settings: Settings) -> Network:
        if self._held is None or self._held[0] != asked:
            self._held = None  # gone before the next is read
            self._held = asked, self._networks.network(asked, settings)
        return self._held[1]

    def _as_asked(
        self, network: Network, left: Sequence[tuple[str, Settings]]
    ) -> Iterator[tuple[Source, list[tuple[str, Settings]]]]:
        """The network as it is and converted, each with its points; points that have no network are told of."""
        groups: dict[Wanted | None, list[tuple[str, Settings]]] = {}
        machines: dict[Wanted, Machine] = {}
        for key, settings in left:
            try:
                machine = machine_at(self._base, settings)
            except InputError as error:
                self._add(key, failed(str(error)), network)
                continue
            wanted = Wanted.of(settings, machine)
            groups.setdefault(wanted, []).append((key, settings))
            if wanted is not None:
                machines.setdefault(wanted, machine)
        as_is = groups.pop(None, [])
        for dense in (False, True):
            some = [(key, settings) for key, settings in as_is if ("family" in settings) == dense]
            if some:
                yield replace(network.source, relative_error=0.0 if dense else None), some
        if machines:
            yield from self._converted(network, machines, {one: groups[one] for one in machines})

    def _converted(
        self,
        network: Network,
        machines: Mapping[Wanted, Machine],
        groups: Mapping[Wanted, list[tuple[str, Settings]]],
    ) -> Iterator[tuple[Source, list[tuple[str, Settings]]]]:
        try:
            dense = network.dense()
        except InputError as error:
            for some in groups.values():
                self._refuse(network, some, str(error))
            return
        kept, digest = self._kept(), digest_of(dense)
        new = [one for one in machines if not kept.has(digest, one)]
        tasks = [(one, machines[one]) for one in new]
        for done, (index, found) in enumerate(self._workers.results_of(made, dense, tasks), start=1):
            kept.add(digest, new[index], found)
            self._tell(f"{network.source.name}, {done} of {len(new)} conversions")
        for wanted, some in groups.items():
            found = kept.get(digest, wanted)
            why, source = found.error, None
            if why is None:
                try:
                    source = replace(network.with_(found.layers), relative_error=found.relative_error)
                except InputError as error:
                    why = str(error)
            if source is not None:
                yield source, some
            else:
                self._refuse(network, some, str(why))

    def _kept(self) -> KeptConversions:
        if self._conversions is None:
            if self._work is None:
                folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            else:
                folder = Path(self._work) / "converted"
            self._conversions = KeptConversions(folder)
        return self._conversions

    def _measure(self, waiting: Sequence[tuple[Source, list[tuple[str, Settings]]]]) -> None:
        sources = [source for source, _ in waiting]
        flat = [(number, key, settings) for number, (_, some) in enumerate(waiting) for key, settings in some]
        tasks = [(number, self._base, self._tokens, dict(settings)) for number, _, settings in flat]
        for index, figures in self._workers.results_of(measure_task, sources, tasks):
            number, key, _ = flat[index]
            self._add(key, figures, sources[number])

    def _refuse(self, network: Network, some: Sequence[tuple[str, Settings]], why: str) -> None:
        for key, _ in some:
            self._add(key, failed(why), network)

    def _add(self, key: str, figures: Row, of: Network | Source) -> None:
        self._journal.add(key, figures)
        self._done += 1
        self._tell(of.name if isinstance(of, Source) else of.source.name)

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, what)


def _size(layers: Mapping[str, LayerWeights]) -> int:
    """About how many numbers layers are stored as."""
    return sum(one.out_features * one.in_features for one in layers.values())
