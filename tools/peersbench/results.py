"""What the turns of the contenders tell: medians, ratios of the rounds, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lrbench_caffe.tabular import Rows

Seconds = Mapping[str, Sequence[float]]  # by contender: one value for each round


@dataclass(frozen=True)
class Spread:
    """The median of some values, the smallest and the largest."""

    median: float
    low: float
    high: float

    def text(self, digits: int, scale: float = 1) -> str:
        values = (self.median * scale, self.low * scale, self.high * scale)
        return "{} ({} to {})".format(*(f"{value:.{digits}f}" for value in values))


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratios(times: Seconds, of: str, to: str) -> Spread:
    """How many times as fast as another a contender is, by the rounds in which both had their turn.

    Args:
        times: the times of both, round by round.
        of: whose speed it is.
        to: the other.
    """
    return spread([other / own for own, other in zip(times[of], times[to])])


def better_ratio(times: Seconds, of: str, others: Iterable[str]) -> float:
    """The ratio to whichever of the others is the best: the smallest of the medians."""
    return min(ratios(times, of, to).median for to in others)


def mean_ratio(values: Iterable[float]) -> float:
    """The geometric mean: that of the inverse ratios is its inverse."""
    return statistics.geometric_mean(values)


@dataclass
class Measured:
    """What was measured of a net or of a layer.

    Attributes:
        title: its name.
        about: its input.
        cpu: by what is measured ("iteration", or "forward" and "backward"): seconds of CPU of a
            pass, by contender, round by round.
        wall: the same in wall time.
        peaks: bytes of memory that a contender had at most.
    """

    title: str
    about: str
    cpu: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    wall: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, reply: Mapping[str, Any]) -> None:
        """Add a contender's turn."""
        for times, told in ((self.cpu, reply["cpu"]), (self.wall, reply["wall"])):
            for what, seconds in told.items():
                times.setdefault(what, {}).setdefault(name, []).append(seconds)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def net_rows(measured: Measured, base: str) -> Rows:
    """A table of a net: a row for each contender; ``base`` is the one that the others are compared with."""
    cpu, wall = measured.cpu["iteration"], measured.wall["iteration"]
    rows = [[measured.title, "CPU ms", "wall ms", f"{base} is faster by", "peak MB"]]
    for name in cpu:
        rows.append(
            [
                name,
                spread(cpu[name]).text(1, 1000),
                f"{spread(wall[name]).median * 1000:.1f}",
                "-" if name == base else ratios(cpu, base, name).text(2),
                f"{measured.peaks[name] / 1e6:.0f}",
            ]
        )
    return rows


def shape_rows(all_measured: Sequence[Measured], base: str) -> Rows:
    """A table of layers: medians in ms, and the ratio to the better of the others."""
    heading = ["layer", "input"]
    for way, times in all_measured[0].cpu.items():
        heading += [f"{way}: {', '.join(times)} (ms)", "ratio"]
    rows = [heading]
    for measured in all_measured:
        row = [measured.title, measured.about]
        for times in measured.cpu.values():
            row.append(", ".join(f"{spread(each).median * 1000:.2f}" for each in times.values()))
            others = peers_of(base, times)
            row.append(f"{better_ratio(times, base, others):.2f}" if others else "-")
        rows.append(row)
    return rows


def peers_of(base: str, names: Iterable[str]) -> list[str]:
    """Whom a contender is compared with: all but other kinds of fast layers."""
    return [name for name in names if name != base and not name.startswith("fast")]


def summary(all_measured: Sequence[Measured], base: str) -> list[str]:
    """Lines with the geometric means over nets or layers, of the ratios' medians."""
    lines = []
    for what in all_measured[0].cpu if all_measured else []:
        tables = [measured.cpu[what] for measured in all_measured]
        names = [name for name in tables[0] if name != base]
        for name in names:
            mean = mean_ratio([ratios(times, base, name).median for times in tables])
            lines.append(f"{what}: {base} / {name}: {mean:.2f}")
        others = peers_of(base, names)
        if len(others) > 1:
            each = [better_ratio(times, base, others) for times in tables]
            best = f"{what}: {base} / the best of {', '.join(others)}: {mean_ratio(each):.2f}"
            lines.append(f"{best} (smallest {min(each):.2f})")
    return lines
