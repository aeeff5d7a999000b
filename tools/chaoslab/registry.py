"""The scenarios by name. A module of ``chaoslab.scenarios`` registers its own with ``@scenario``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaoslab.trial import Trial

Body = Callable[["Trial"], str]


@dataclass(frozen=True)
class Scenario:
    """A kind of trial.

    Attributes:
        name: as on the command line.
        body: does one trial and returns EQUAL or REFUSED; raises a TrialError for all else.
        weight: how often it is chosen at random, beside the others.
    """

    name: str
    body: Body
    weight: float = 1.0

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.body) or "").partition("\n\n")[0].replace("\n", " ")


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, weight: float = 1.0) -> Callable[[Body], Body]:
    """Register a function as a scenario; the first paragraph of its docstring is its help."""

    def register(body: Body) -> Body:
        SCENARIOS[name] = Scenario(name, body, weight)
        return body

    return register


def load_all() -> dict[str, Scenario]:
    """All scenarios, by name."""
    from chaoslab import scenarios

    for module in pkgutil.iter_modules(scenarios.__path__):
        importlib.import_module(f"{scenarios.__name__}.{module.name}")
    return dict(sorted(SCENARIOS.items()))
