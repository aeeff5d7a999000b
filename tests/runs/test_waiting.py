"""Results that a database has not got wait for the next command that opens it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.records import RunRecord
from lrbench_caffe.runs import waiting
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import lasting_facts
from lrbench_caffe.runs.syncing import read_run
from lrbench_caffe.runtime.replies import Opened
from lrbench_caffe.terminal import cli
from lrbench_caffe.training import recorder as recording
from lrbench_caffe.training.recorder import Recorder
from tests.database.records import at, run


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def url(new_url) -> str:
    return new_url("sqlite")


def trained(
    path: Path, record: RunRecord, status: str = "finished", journals: bool = False
) -> RunDirectory:
    """A run directory as a training leaves it; without journals, one of the first version."""
    directory = RunDirectory(path)
    directory.lock()
    ended = record.ended if status != "running" else None
    facts = {"solver": "a.prototxt", "record": lasting_facts(record)}
    settings = {**facts, "status": status, "reason": None, "ended": ended}
    if journals:
        directory.begin({**settings, "id": "0" * 32})
    else:
        directory.write(settings)
    for measurement in record.measurements:
        directory.add_measurement(measurement)
    return directory


def notes() -> list[Path]:
    return list(waiting.folder().glob("*"))


def command(*arguments: object) -> int:
    return cli.run(db.main, [str(argument) for argument in arguments])


def test_the_next_command_brings_in_what_waits_and_says_so(url, tmp_path, capfd):
    for uid in ("a", "b"):
        trained(tmp_path / uid, run(uid)).release()
        waiting.add(waiting.note_of(url, tmp_path / uid, uid))
    assert command("--db", url, "runs", "--source", "measured", "--json") == 0
    out, err = capfd.readouterr()
    assert sorted(json.loads(line)["uid"] for line in out.splitlines()) == ["a", "b"]
    assert err == "added to the LR database: 2 runs that waited for it\n"
    assert notes() == []
    assert command("--db", url, "info") == 0
    assert capfd.readouterr().err == ""
    with Database.open(url) as database:
        assert database.get("a") == run("a")


def test_a_run_that_is_trained_and_one_of_another_database_go_on_waiting(url, new_url, tmp_path):
    running = trained(tmp_path / "a", run("a"), status="running")
    trained(tmp_path / "b", run("b")).release()
    waiting.add(waiting.note_of(url, tmp_path / "a", "a"))
    waiting.add(waiting.note_of(new_url("sqlite"), tmp_path / "b", "b"))
    said: list[str] = []
    with Database.open(url) as database:
        waiting.bring_in(database, said.append)
        assert (said, len(notes())) == ([], 2)
        running.release()  # killed: nobody says how it ended
        waiting.bring_in(database, said.append)
        assert database.get("a").status == "failed"
        assert "killed" in database.get("a").reason
    assert (said, len(notes())) == (["added to the LR database: 1 run that waited for it"], 1)


def test_a_session_that_was_killed_is_later_than_the_one_before_it(url, tmp_path):
    """Both came in; the clock was set back between them."""
    stopped = run("a", status="stopped", ended=2e9)
    directory = trained(tmp_path / "a", stopped, status="stopped")
    directory.release()
    with Database.open(url) as database:
        database.put(read_run(directory.path))
        directory.update(status="running", sessions=[{"began": directory.now()}])
        database.put(read_run(directory.path))
        found = database.get("a")
    assert (found.status, found.ended) == ("failed", pytest.approx(2e9 + 0.001, abs=1e-5))


def test_what_is_gone_or_cannot_be_stored_is_given_up(url, tmp_path):
    for uid in ("deleted", "other", "damaged", "refused", "unwanted"):
        trained(tmp_path / uid, run(uid)).release()
        waiting.add(waiting.note_of(url, tmp_path / uid, uid))
    shutil.rmtree(tmp_path / "deleted")
    shutil.rmtree(tmp_path / "other")
    trained(tmp_path / "other", run("another training")).release()
    (tmp_path / "damaged" / "run.json").write_text("{")
    RunDirectory(tmp_path / "unwanted").update(record=None)  # trained again with --no-db
    (waiting.folder() / "x.json").write_text("not ours")
    said: list[str] = []
    with Database.open(url) as database:
        database.put(run("refused", seed=9))
        before = database.counts()
        waiting.bring_in(database, said.append)
        assert database.counts() == before
    assert sorted(line.partition(" ")[0] for line in said) == [
        str(tmp_path / "damaged"), str(tmp_path / "refused")
    ]  # fmt: skip
    assert [path.name for path in notes()] == ["x.json"]


def test_a_run_of_which_the_journal_is_left_is_brought_in(url, tmp_path):
    trained(tmp_path / "a", run("a"), journals=True).release()
    waiting.add(waiting.note_of(url, tmp_path / "a", "a"))
    (tmp_path / "a" / "run.json").unlink()
    with Database.open(url) as database:
        waiting.bring_in(database, lambda line: None)
        assert database.get("a") == run("a")
    assert notes() == []
    assert command("--db", url, "sync", tmp_path / "a") == 0


def test_a_run_on_a_disk_that_is_away_goes_on_waiting(url, tmp_path):
    disk = tmp_path / "disk"
    trained(disk / "a", run("a")).release()
    waiting.add(waiting.note_of(url, disk / "a", "a"))
    disk.rename(tmp_path / "elsewhere")
    with Database.open(url) as database:
        waiting.bring_in(database, lambda line: None)
        assert len(notes()) == 1
        (tmp_path / "elsewhere").rename(disk)
        waiting.bring_in(database, lambda line: None)
        assert database.get("a") == run("a")


def test_runs_of_another_machine_are_left_to_it(url, tmp_path):
    """Their directories may be on its own disk, where we see nothing or something else."""
    note = dataclasses.replace(waiting.note_of(url, tmp_path / "a", "a"), machine="elsewhere")
    waiting.add(note)
    with Database.open(url) as database:
        waiting.bring_in(database, print)
    assert notes() == [note.path]


def test_a_database_with_a_password_is_noted_without_it(tmp_path):
    waiting.add(waiting.note_of("postgresql://ada:secret-word@example.org/lr", tmp_path / "a", "a"))
    (path,) = notes()
    assert "secret-word" not in path.read_text()
    assert "example.org/lr" in path.read_text()


# -- the recorder ----------------------------------------------------------------------------------

OPENED = Opened(1, [], [])


def record_training(url: str, directory: RunDirectory, said: list[str]) -> None:
    """What a training tells its recorder, until its last try to store it is over."""
    record = run("a", status="running", ended=None, measurements=[])
    observer = Recorder(url, directory, lambda opened: record, said.append)
    observer.opened(OPENED)
    for measurement in run("a").measurements:
        directory.add_measurement(measurement)
        observer.tested([measurement])
    directory.update(status="finished", ended=1060.0)
    observer.ended("finished", None)
    observer._thread.join(60)
    directory.release()


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.lock()
    made.write({"solver": "a.prototxt", "status": "running", "reason": None})
    return made


def test_a_training_leaves_no_note_where_all_is_stored(url, directory):
    said: list[str] = []
    record_training(url, directory, said)
    # A busy machine takes its time, and it is said.
    assert [line for line in said if not line.startswith("waiting up to ")] == []
    assert notes() == []
    with Database.open(url) as database:
        assert database.get("a") == run("a")
    kept = directory.read()["record"]
    assert not {"status", "reason", "ended", "measurements"} & set(kept)  # run.json says it once


def test_a_file_in_use_for_the_whole_training_gets_the_results_later(
    url, directory, monkeypatch, capfd
):
    for name, seconds in (("BESIDE_TRAINING", 0.1), ("LAST_PATIENCE", 0.5), ("SILENCE", 0.1)):
        monkeypatch.setattr(recording, name, seconds)
    said: list[str] = []
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        record_training(url, directory, said)
    assert any(line == "waiting up to 0.5 s for the LR database" for line in said)
    assert len(notes()) == 1
    assert command("--db", url, "info") == 0
    assert "added to the LR database: 1 run that waited for it" in capfd.readouterr().err
    with Database.open(url) as database:
        assert database.get("a") == run("a")


def test_a_file_that_is_free_at_the_end_gets_all(url, directory, monkeypatch):
    """It is in use when the training begins, and is waited for."""
    monkeypatch.setattr(recording, "BESIDE_TRAINING", 0.1)
    said: list[str] = []
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        record = run("a", status="running", ended=None, measurements=[])
        observer = Recorder(url, directory, lambda opened: record, said.append)
        observer.opened(OPENED)
        observer.tested([at(100, 90.0)])
        directory.add_measurement(at(100, 90.0))
        other.execute("ROLLBACK")
    directory.update(status="finished", ended=1060.0)
    observer.ended("finished", None)
    directory.release()
    with Database.open(url) as database:
        assert database.get("a").status == "finished"
        assert len(database.get("a").measurements) == 1
    assert notes() == []
