"""The command without Caffe, and how long it waits."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from lrbench_caffe import rank, recommend
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.records import SCRATCH
from lrbench_caffe.runs import opening
from lrbench_caffe.terminal import cli
from lrbench_caffe.training import choosing, recommending
from tests.knowledge.tasks import DIGITS, LENET_DIGITS


@pytest.fixture
def without_caffe(monkeypatch):
    solver = SimpleNamespace(message=SimpleNamespace(max_iter=2000), epoch=25.94)
    monkeypatch.setattr(
        recommending, "open_wanted", lambda *_, **__: (solver, Wanted(DIGITS, SCRATCH))
    )
    monkeypatch.setattr(choosing, "solver_settings", lambda _: LENET_DIGITS)


@pytest.mark.parametrize(
    ("args", "end"),
    [
        (["--max-iter", "100"], "l=50"),
        (["--functions", "sin2,,"], "l=86"),
        (["--weights", "a,b"], "l=86"),
    ],
)
def test_the_command_to_train_with(without_caffe, fresh, capsys, args, end):
    assert cli.run(recommend.main, ["x.prototxt", *args, "--db", str(fresh)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    flags = f"{' '.join(args)} " if args[0] != "--functions" else ""
    policy = f"SIN2(k0=0.01, k1=0.06, {end})"
    assert last == f'python -m lrbench_caffe.train x.prototxt {flags}--lr "{policy}"'


@pytest.mark.parametrize(("command", "args"), [(rank, []), (recommend, ["x.prototxt"])])
def test_waiting_for_a_server_is_said_and_ends(without_caffe, monkeypatch, capsys, command, args):
    def away(url, *, patience, **_):
        time.sleep(0.2)
        raise InputError(f"away for {patience:g} s")

    monkeypatch.setattr(opening, "SILENCE", 0.01)
    monkeypatch.setattr(Database, "open", away)
    url = "postgresql://ada:secret@example.org/lr"
    assert cli.run(command.main, [*args, "--db", url]) == 2
    waiting, error = capsys.readouterr().err.splitlines()
    assert waiting.startswith("waiting up to 10 s for the database postgresql://ada:")
    assert error == "error: away for 10 s" and "secret" not in waiting
