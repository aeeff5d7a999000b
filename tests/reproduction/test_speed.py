"""How long trainings take: what is measured, and what is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lrbench_caffe.reproduction import speed


class SlowToBegin:
    """A worker by its own clock: a batch takes 0.02 s, the first one of a test net 1 s more, as in Caffe."""

    def __init__(self) -> None:
        self.now = 100.0
        self.tested = 0

    def test(self, index: int, passes: int, heads: list[object]) -> None:
        self.now += 0.02 * passes + (0 if self.tested else 1.0)
        self.tested += passes


def test_the_first_batch_of_a_test_net_is_not_that_of_all_others(monkeypatch):
    worker = SlowToBegin()
    monkeypatch.setattr(speed.time, "monotonic", lambda: worker.now)
    net = SimpleNamespace(passes=100, heads=[])
    assert speed._test(worker, 0, net) == pytest.approx(2.0)  # 100 batches of 0.02 s
    short = SimpleNamespace(passes=3, heads=[])
    assert speed._test(worker, 0, short) == pytest.approx(0.06)
