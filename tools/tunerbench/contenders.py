"""Whom the tuner is compared with: each peer's defaults, the settings to try, and the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from . import dehb_peer, peers, smac_peer, syne_tune_peers
from .peers import Optimiser, Setting

# Smallest budgets, reduction factors and kinds that --settings tries: fewer of the peers that take longer.
Grid = tuple[Sequence[int], Sequence[int], Sequence[str]]
WIDE: Grid = ((1, 2, 3, 4, 6, 8), (2, 3, 4), ("",))
SMALL: Grid = ((1, 2, 4), (2, 3), ("",))
RUNGS: Grid = ((1, 2, 4), (2, 3), ("stopping", "promotion"))
INSTALL = "tools/tunerbench/requirements.txt says how to install them"


@dataclass(frozen=True)
class Peer:
    """A published optimiser.

    Attributes:
        key: its name on the command line.
        package: the distribution that it comes from.
        version: how the version must begin; "" for any.
        make: the optimiser with a setting.
        default: what the package does unless told otherwise; where it has no default for the
            smallest budget, that is one test.
        best: by the set's name, what --settings found: chosen on the results themselves.
        grid: what --settings tries.
    """

    key: str
    label: str
    package: str
    version: str
    make: Callable[[Setting], Optimiser]
    default: Setting
    best: Mapping[str, Setting] = field(default_factory=dict)
    grid: Grid = SMALL

    @property
    def installed(self) -> str | None:
        """The version that is installed; None if there is none, or one of another kind."""
        try:
            version = metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None
        return version if version.startswith(self.version) else None

    @property
    def settings(self) -> list[Setting]:
        """What --settings tries."""
        return [Setting(*values) for values in itertools.product(*self.grid)]

    def named(self, setting: Setting) -> str:
        return f"{self.label}: {'defaults' if setting == self.default else setting}"

    def kept_as(self, setting: Setting) -> str:
        """The name of its runs in a file: they are of this version."""
        return f"{self.label}: {setting} ({self.package} {self.installed})"


PEERS = [
    Peer(
        "tpe", "Optuna TPE + Hyperband", "optuna", "", peers.tpe_hyperband, Setting(1, 3),
        {"digits": Setting(1, 3), "mnist": Setting(8, 2)}, grid=WIDE,
    ),
    Peer(
        "halving", "Optuna random + halving", "optuna", "", peers.random_halving, Setting(1, 4),
        {"digits": Setting(2, 2), "mnist": Setting(8, 2)}, grid=WIDE,
    ),
    Peer("smac", "SMAC3 multi-fidelity", "smac", "2.", smac_peer.smac_facade, Setting(1, 3)),
    Peer(
        "dehb", "DEHB", "DEHB", "0.1", dehb_peer.dehb, Setting(1, 3),
        {"digits": Setting(4, 3), "mnist": Setting(1, 3)},
    ),
    Peer(
        "asha", "Syne Tune ASHA", "syne-tune", "0.13", syne_tune_peers.asha,
        Setting(1, 3, "stopping"),
        {"digits": Setting(2, 3, "promotion"), "mnist": Setting(4, 3, "promotion")},
        grid=RUNGS,
    ),
    Peer(
        "mobster", "Syne Tune MOBSTER", "syne-tune", "0.13", syne_tune_peers.mobster,
        Setting(1, 3, "stopping"), grid=RUNGS,
    ),
]  # fmt: skip


def left_out(chosen: Sequence[Peer]) -> list[str]:
    """A line for each peer whose package is not installed, and one on how to install it."""
    lines = [
        f"{peer.label} is left out: {peer.package} {peer.version}".rstrip(" .")
        + " is not installed"
        for peer in chosen
        if peer.installed is None
    ]
    return [*lines, INSTALL] if lines else []
