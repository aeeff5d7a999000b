"""The interface of an LR policy, and the policy of a single function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import numpy as np

from . import parameters as par
from .errors import PolicyError
from .functions import LRFunction, find_function
from .parameters import Value
from .plateau import Trigger


class Policy(ABC):
    """The LR as a pure function of the iteration: immutable, hashable, checked when it is built.

    There are two kinds, FunctionPolicy and Composition; `parse` returns either. Two policies are
    equal if they print alike and are bound to the same max_iter; parse(str(policy)) == policy for
    every policy that is not bound.

    Attributes:
        function: "SIN2"; of a composition its functions joined, "FIX ; SINEXP".
        functions: ("SIN2",) or ("FIX", "SINEXP").
        kind: "fixed", "decaying", "cyclic", "sigmoid", "plateau" or "composition".
        params: the parameters as given, defaults left out; empty for a composition (see its
            segments).
        num_params: the paper's #Param.
        max_iter: what `bind` gave, else None.
        needs_max_iter: True for POLY without l that is not bound: it cannot be evaluated yet.
        pending: the trigger to watch for next, or None. Undecided boundaries evaluate as if they
            never come.
        pending_since: watch the tests after this iteration.
    """

    max_iter: int | None

    @overload
    def __call__(self, t: int | float) -> float: ...

    @overload
    def __call__(self, t: np.ndarray | Sequence[int]) -> np.ndarray: ...

    def __call__(self, t: Any) -> Any:
        """The LR at iteration t (the first update has t = 0).

        Arguments:
            t: an iteration, or an array of any shape.

        Returns:
            A float, or a float64 array of the shape of t. Both ways give the same bits.

        Raises:
            PolicyError: t is negative or not a finite number, or the policy needs max_iter.
        """
        if self.needs_max_iter:
            raise PolicyError(
                f"{self}: l is missing and means max_iter; give l, or bind(max_iter) first"
            )
        try:
            times = np.asarray(t, dtype=np.float64)
        except (TypeError, ValueError):
            times = np.array(np.nan)
        if not np.all((times >= 0) & (times < np.inf)):
            raise PolicyError(f"an iteration must be a number, 0 or more: {t}")
        with np.errstate(over="ignore", under="ignore"):
            rates = self._rates(times.reshape(-1))
        return float(rates[0]) if times.ndim == 0 else rates.reshape(times.shape)

    @property
    def function(self) -> str:
        return " ; ".join(self.functions)

    @property
    @abstractmethod
    def functions(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @property
    @abstractmethod
    def params(self) -> Mapping[str, Value]: ...

    @property
    @abstractmethod
    def num_params(self) -> int: ...

    @property
    @abstractmethod
    def needs_max_iter(self) -> bool: ...

    @property
    @abstractmethod
    def pending(self) -> Trigger | None: ...

    @property
    @abstractmethod
    def pending_since(self) -> int: ...

    @abstractmethod
    def bind(self, max_iter: int) -> Policy:
        """The policy for a training of max_iter iterations: POLY without l ends there.

        It still prints without l and counts as #Param 3, since l was not chosen. Other policies are
        returned as they are. A bound policy is parse(str(policy)).bind(max_iter).

        Raises:
            PolicyError: max_iter is not a whole number above 0.
        """

    @abstractmethod
    def decide(self, iteration: int) -> Policy:
        """The policy with its pending boundary fixed at this iteration, from which the new LR holds.

        Raises:
            PolicyError: nothing is pending, or the iteration is not after `pending_since`.
        """

    @abstractmethod
    def __format__(self, spec: str) -> str:
        """The policy as text; a `spec` such as ".7g" prints fewer digits than reading it back needs."""

    @abstractmethod
    def _rates(self, times: np.ndarray) -> np.ndarray: ...

    def _check_decision(self, iteration: int) -> None:
        if self.pending is None:
            raise PolicyError(f"{self}: nothing to decide at iteration {iteration}")
        if not par.check_whole("a decision", iteration) > self.pending_since:
            raise PolicyError(
                f"{self}: a decision at {iteration} must come after iteration {self.pending_since}"
            )

    def __str__(self) -> str:
        return format(self)

    def __repr__(self) -> str:
        bound = "" if self.max_iter is None else f".bind({self.max_iter})"
        return f"parse({str(self)!r}){bound}"


@dataclass(frozen=True, init=False, repr=False)
class FunctionPolicy(Policy):
    """One LR function with its parameters.

        eta(t) = |k0 - k1| * g(t) + min(k0, k1)

    with g(t) from the table of functions (formula 2 and Table I of the paper).

    Arguments:
        function: the name, in any case.
        strict: False allows what Caffe's own policies allow (gamma above 1, k0 of 0, ...); see
            from_caffe.
        params: the function's parameters, as a mapping or by name: k0, k1 (LR), gamma, p, l
            (iterations; a list of them for NSTEP), n (tests), metric, min_delta.

    Raises:
        PolicyError: unknown function; unknown, missing or misplaced parameter; value outside its
            range.

    >>> policy = FunctionPolicy("SIN2", k0=0.01, k1=0.06, l=2000)
    >>> policy(0), policy(2000), policy(4000), round(policy(6000), 6)
    (0.01, 0.06, 0.01, 0.035)
    >>> policy.num_params, policy.kind, str(policy)
    (3, 'cyclic', 'SIN2(k0=0.01, k1=0.06, l=2000)')
    """

    name: str
    given: tuple[tuple[str, Value], ...]
    max_iter: int | None

    def __init__(
        self,
        function: str,
        params: Mapping[str, object] | None = None,
        /,
        *,
        strict: bool = True,
        **more: object,
    ) -> None:
        entry = find_function(function)
        values = par.accept_all(entry.name, entry.parameters, {**(params or {}), **more}, strict)
        if (
            strict
            and entry.order is not None
            and not entry.order.holds((values["k0"], values["k1"]))
        ):
            k0, k1 = (par.print_value(values[name]) for name in ("k0", "k1"))
            raise PolicyError(f"{entry.name}: k0={k0}, k1={k1}: {entry.order.text}")
        given = tuple(
            (p.name, values[p.name]) for p in entry.parameters if values[p.name] != p.default
        )
        object.__setattr__(self, "name", entry.name)
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "max_iter", None)

    @property
    def entry(self) -> LRFunction:
        """The function's row in the table."""
        return find_function(self.name)

    @property
    def functions(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def kind(self) -> str:
        return self.entry.kind

    @property
    def params(self) -> Mapping[str, Value]:
        return MappingProxyType(dict(self.given))

    @property
    def values(self) -> Mapping[str, Any]:
        """All parameters, defaults included; l of POLY is None where max_iter is meant and not known."""
        values: dict[str, Any] = {p.name: p.default for p in self.entry.parameters}
        values.update(self.given)
        if self._ends_at_max_iter:
            values["l"] = self.max_iter
        return MappingProxyType(values)

    @property
    def num_params(self) -> int:
        """The paper's #Param (Table I): every number that was chosen.

        A list counts its length. A lower bound k1 of a decaying function (except POLY, whose 3 or 4
        in Table I includes it), POLY's l and PLATEAU's min_delta count if they were given.
        """
        return sum(p.counted(self.params.get(p.name, p.default)) for p in self.entry.parameters)

    @property
    def needs_max_iter(self) -> bool:
        return self._ends_at_max_iter and self.max_iter is None

    @property
    def _ends_at_max_iter(self) -> bool:
        return par.L_MAX_ITER in self.entry.parameters and "l" not in self.params

    @property
    def pending(self) -> Trigger | None:
        if self.kind != "plateau":
            return None
        values = self.values
        return Trigger(values["n"], values["metric"], values["min_delta"])

    @property
    def pending_since(self) -> int:
        return max(self.values.get("decided", ()), default=0)

    def bind(self, max_iter: int) -> FunctionPolicy:
        end = par.check_whole("max_iter", max_iter)
        if not self._ends_at_max_iter:
            return self
        bound = copy(self)
        object.__setattr__(bound, "max_iter", end)
        return bound

    def decide(self, iteration: int) -> FunctionPolicy:
        self._check_decision(iteration)
        decided = (*self.values["decided"], iteration)
        return FunctionPolicy(self.name, {**self.params, "decided": decided}, strict=False)

    def __format__(self, spec: str) -> str:
        # without max_iter, which was bound and not given
        values = {p.name: p.default for p in self.entry.parameters}
        values.update(self.given)
        return f"{self.name}({par.print_arguments(self.entry.parameters, values, spec)})"

    def _rates(self, times: np.ndarray) -> np.ndarray:
        values = dict(self.values)
        low, high = sorted((values["k0"], values.get("k1", 0.0)))
        if low < 0:  # Caffe takes a negative base_lr; its policies are k0 * g(t)
            low, high = high, low
        g = self.entry.g(times, values)
        # low + (high - low) can differ from high in the last digit
        rates: np.ndarray = np.where(g == 1, high, low + (high - low) * g)
        return rates
