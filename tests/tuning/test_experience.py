"""What a tuning takes from the LR database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.tuning import experience

LRS = (0.001, 0.002, 0.004)


@pytest.mark.parametrize(("top1", "known"), [(12.0, False), (95.0, True)])
def test_a_range_comes_only_from_policies_that_learned(
    top1: float, known: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three trainings that guess are no range: it has to be tested for."""
    proposals = [
        SimpleNamespace(
            policy=parse(f"FIX(k0={lr})"),
            evidence=["of this task"],
            main=SimpleNamespace(same_task=True, summary=SimpleNamespace(top1=SimpleNamespace(mean=top1))),
        )
        for lr in LRS
    ]
    found = SimpleNamespace(proposals=proposals, compared=len(LRS), experienced=True)
    monkeypatch.setattr(experience, "recommend", lambda *_, **__: found)
    monkeypatch.setattr(experience, "solver_settings", lambda _: None)
    task: Any = SimpleNamespace(dataset=SimpleNamespace(classes=10))
    solver: Any = SimpleNamespace(epoch=25.0)
    good = experience.look_up(str(tmp_path / "lr.sqlite"), task, solver, 100, ("FIX",)).good
    assert (good is not None) is known
    if good:
        assert (good.low, good.high) == (0.001, 0.004)
