"""The tuner's search on the recorded curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lrbench_caffe.lr import Policy

from .curves import Curve, CurveSet
from .ledger import Ledger
from .peers import Optimiser, Outcome


class Step(Protocol):
    """Train this policy up to this iteration."""

    index: int
    until: int


class Asking(Protocol):
    """A search that says what to train next, and is told what came of it."""

    def ask(self) -> Any: ...

    def tell(self, step: Any, curve: Any) -> None: ...


class MakeSearch(Protocol):
    def __call__(
        self, policies: Sequence[Policy], *, max_iter: int, test_interval: int, epoch: float, seed: int
    ) -> Asking: ...


class MakeCurve(Protocol):
    def __call__(
        self, iterations: Any, top1: Any, test_loss: Any, train_loss: Any, status: str
    ) -> object: ...


def asking(make_search: MakeSearch, make_curve: MakeCurve) -> Optimiser:
    """An optimiser that spends what a search asks for.

    Every policy has one training: that of the curve set's seed, whatever seed the search asks for.
    """

    def run(task: CurveSet, ledger: Ledger, seed: int) -> Outcome:
        search = make_search(
            task.policies,
            max_iter=task.max_iter,
            test_interval=task.test_interval,
            epoch=task.epoch,
            seed=seed,
        )
        outcome = Outcome()
        while not ledger.over and (step := search.ask()) is not None:
            outcome.trials += 1
            search.tell(step, _told(ledger.train(step.index, step.until), make_curve))
        return outcome

    return run


def _told(curve: Curve, make_curve: MakeCurve) -> object:
    return make_curve(curve.iterations, curve.top1, curve.test_loss, curve.train_loss, curve.status)
