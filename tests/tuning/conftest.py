"""What all tests of tuning share."""

from __future__ import annotations

import pytest

from lrbench_caffe.jobs import retrying


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSES", (0.0,))
