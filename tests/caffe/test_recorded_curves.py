"""The recording of learning curves for tools/bench_tuner, with real trainings."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from lrbench_caffe.errors import InputError
from tests.caffe.harness import Workspace
from tunerbench import curves, recording
from tunerbench.pool import Ranges

SMALL = recording.Setup("solver.prototxt", 20, 10, seeds=1, ranges=Ranges((0.001, 0.01), (), ()))


@pytest.mark.ci
def test_what_the_file_has_is_not_trained_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROOT", workspace.path)
    monkeypatch.setitem(recording.SETUPS, "small", SMALL)
    folder, out = workspace.path / "runs", workspace.path / "small.json"
    folder.mkdir()
    todo = recording.trainings(SMALL, 1, folder, "stock")
    assert list(recording.record(todo[:1], jobs=1)) == ["FIX(k0=0.001), seed 1: finished"]
    recording.make_data_file(folder, out, "small")
    assert not curves.read(out).curves  # a policy of the pool is missing
    (first,) = known = recording.recorded(out, SMALL)
    shutil.rmtree(folder)
    folder.mkdir()
    todo = recording.trainings(SMALL, 1, folder, "stock", known)
    assert list(recording.record(todo, jobs=1)) == ["FIX(k0=0.01), seed 1: finished"]
    recording.make_data_file(folder, out, "small", known)
    assert list(map(str, curves.read(out).policies)) == ["FIX(k0=0.001)", "FIX(k0=0.01)"]
    assert recording.recorded(out, SMALL)[0] == first
    assert not recording.trainings(SMALL, 1, folder, "stock", recording.recorded(out, SMALL))
    longer = dataclasses.replace(SMALL, max_iter=30)
    with pytest.raises(InputError, match=r"its max_iter is 20, that of the set 30; use --out"):
        recording.recorded(out, longer)
