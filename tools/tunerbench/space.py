"""The pool as a search space: the function, then the parameters that it leaves open."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lrbench_caffe.lr import Policy

FUNCTION = "function"


def place(policy: Policy) -> tuple[str, float, int]:
    """Where a policy of the pool stands: function, highest LR, and l (0 for those that are not cyclic)."""
    params: dict[str, Any] = dict(policy.params)
    length = params["l"] if policy.kind == "cyclic" else 0
    return policy.function, max(params["k0"], params.get("k1", 0.0)), length


class Space:
    """Conditional categories, the same for every optimiser that models a space.

    Parameters with the same choices are the same for all functions, so that what is learned of one
    helps with the others.

    Attributes:
        functions: the choices of the parameter ``function``.
        choices: of each of the other parameters, by its name.
        open: names of the parameters that a function leaves open.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        places = [place(policy) for policy in policies]
        self.functions = list(dict.fromkeys(policy.function for policy in policies))
        self.choices: dict[str, list[Any]] = {}
        self.open: dict[str, list[str]] = {function: [] for function in self.functions}
        self._index: dict[tuple[Hashable, ...], int] = {}
        for function in self.functions:
            own = {index: found for index, found in enumerate(places) if found[0] == function}
            axes = [axis for axis in (1, 2) if len({found[axis] for found in own.values()}) > 1]
            for axis in axes:
                choices = sorted({found[axis] for found in own.values()})
                name = f"{'?kl'[axis]} of {choices}"
                self.choices[name] = choices
                self.open[function].append(name)
            for index, found in own.items():
                key = (function, *(found[axis] for axis in axes))
                self._index[key] = index

    def index(self, values: Mapping[str, Any]) -> int:
        """The policy with these values of ``function`` and of what it leaves open; others are ignored."""
        function = str(values[FUNCTION])
        key = (function, *(values[name] for name in self.open[function]))
        return self._index[key]

    def functions_with(self, name: str) -> list[str]:
        """The functions that leave a parameter open."""
        return [function for function in self.functions if name in self.open[function]]
