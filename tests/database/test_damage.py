"""Damaged databases: one line, never a traceback; a training goes on; ``db check`` names the damage."""

from __future__ import annotations

import dataclasses
import os
import random
import shlex
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from chaoslab.damage import sqlite_files
from lrbench_caffe import db, rank
from lrbench_caffe.database import Database, RecordError
from lrbench_caffe.database.errors import DamagedDatabase
from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.records import SCRATCH, Start, Task
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.training.recorder import Recorder
from tests.database.records import DATASET, FRAMEWORK, NETWORK, SOLVER, at, policy, run


def fill(database: Database) -> None:
    """Some runs of each kind, so that no table is empty."""
    statuses = ("finished", "finished", "diverged", "failed")
    texts = ("SIN2(k0=0.01, k1=0.06, l=2000)", "FIX(k0=0.01)")
    records = [
        run(
            f"{seed}-{text[:3]}", seed=seed, policy=policy(text), status=status, reason="why",
            measurements=[at(100, 90.0 + seed, outputs={"loss": 0.3}), at(200, 95.0)],
        )
        for text in texts
        for seed, status in enumerate(statuses)
    ]  # fmt: skip
    other = dataclasses.replace(DATASET, name="letters", digest="d2")
    records += [
        run(
            "weights", dataset=other, start=Start("weights", "a" * 32, filled=2, layers=4, name="x")
        ),
        run("unknown", dataset=other, start=Start("unknown"), source="imported"),
    ]
    database.put_many(records)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "lr.sqlite"
    with Database.open(str(path)) as database:
        fill(database)
    return path


@pytest.fixture
def path(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; no notes of runs that wait."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(filled, tmp_path / "lr.sqlite"))


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute(statement, values)
        file.commit()


def refusal(main, arguments: str, capsys) -> str:
    """The one line with which a command fails."""
    capsys.readouterr()
    assert cli.run(main, shlex.split(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def damage_of(path: Path, capsys) -> list[str]:
    """What ``db check`` prints."""
    capsys.readouterr()
    assert cli.run(db.main, ["check", "--db", str(path)]) == 1
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def made_at_once(monkeypatch):
    """A file is not waited for to be filled."""
    monkeypatch.setattr("lrbench_caffe.database.preparing.EMPTY", 0.05)


def record_a_run(path: Path, tmp_path: Path) -> list[str]:
    """What the recorder of a training says; it ends whatever becomes of the database."""
    notes: list[str] = []
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir(exist_ok=True)
    (directory.path / "run.json").write_text('{"solver": "solver.prototxt"}')
    recorder = Recorder(str(path), directory, lambda _: run("new"), notes.append)
    recorder.opened(None)  # type: ignore[arg-type]
    recorder.tested([at(100, 50.0)])
    recorder.ended("finished", None)
    return notes


# -- any damage ------------------------------------------------------------------------------------


def recommending(path: str) -> None:
    task = Task(FRAMEWORK, "classification", DATASET, NETWORK)
    with open_at_terminal(path) as database:
        recommend(database, task, start=SCRATCH, solver=SOLVER, max_iter=300, epoch=22.5)


COMMANDS = (
    (db.main, "tasks"), (db.main, "runs --limit 100"), (db.main, "export -"), (db.main, "check"),
    (db.main, "delete --status failed --yes"), (rank.main, "--task digits"),
)  # fmt: skip


@pytest.mark.usefixtures("made_at_once")
@pytest.mark.parametrize("kind", sqlite_files.KINDS)
def test_any_damage_is_refused_in_a_line_or_harmless(kind, path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.training.recorder.LAST_PATIENCE", 1.0)
    seed = random.Random(kind).randrange(1000)
    damaged = tmp_path / "damaged.sqlite"
    for main, arguments in (*COMMANDS, (recommending, ""), (None, "")):
        if damaged.is_dir():
            damaged.rmdir()
        for old in tmp_path.glob(f"{damaged.name}*"):
            old.unlink()
        shutil.copy(path, damaged)
        sqlite_files.damage(damaged, kind, random.Random(seed))
        if main is None:
            record_a_run(damaged, tmp_path)
            continue
        capsys.readouterr()
        if main is recommending:
            code = cli.run(lambda _: recommending(str(damaged)), [])
        else:
            code = cli.run(main, [*arguments.split(), "--db", str(damaged)])
        done = capsys.readouterr()
        assert code in (0, 1, 2), (arguments, done.err)
        assert len(done.err.splitlines()) == (code != 0), (arguments, done.err)


# -- each kind -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "value", "words"),
    [
        (
            "UPDATE run SET origin = CAST(? AS TEXT) WHERE uid = '1-FIX'",
            b"caf\xe9",
            "Could not decode to UTF-8",
        ),
        ("UPDATE run SET machine = ? WHERE uid = '1-FIX'", b"\x00", "run.machine is b'\\x00'"),
        ("UPDATE run SET started = ? WHERE uid = '1-FIX'", 1e300, "run.started is 1e+300"),
        ("UPDATE run SET start_kind = ? WHERE uid = '1-FIX'", "[/x]", "run.start_kind is '[/x]'"),
        ("UPDATE measurement SET top1 = ?", "many", "measurement.top1 is 'many'"),
        (
            "UPDATE measurement SET outputs = ?",
            '{"loss": "low"}',
            "measurement.outputs is {'loss': 'low'}",
        ),
        ("UPDATE network SET layers = ?", "{", "JSONDecodeError"),
        ("UPDATE network SET layers = ?", "[]", "network.layers is []"),
    ],
)
def test_a_value_that_cannot_be_is_named(statement, value, words, path, capsys):
    change(path, statement, value)
    line = refusal(db.main, f"export - --db {path}", capsys)
    assert line.startswith(f"error: database {path} is damaged: ") and words in line
    assert f"db check --db {path} lists the damage" in line and "'db backup'" in line
    assert damage_of(path, capsys)


def test_ranking_does_not_rank_what_cannot_be(path, capsys):
    change(path, "UPDATE summary SET top1 = 'many'")
    assert "summary.top1 is 'many'" in refusal(rank.main, f"--task digits --db {path}", capsys)


def test_check_names_each_place(path, capsys):
    change(
        path,
        "UPDATE measurement SET ac = 'x' WHERE run_id = (SELECT id FROM run WHERE uid = '1-FIX')",
    )
    change(path, "UPDATE run SET machine = CAST(x'ff' AS TEXT) WHERE uid = '2-FIX'")
    change(path, "UPDATE network SET name = 'LeNot' WHERE name = 'LeNet'")
    change(path, "DELETE FROM solver")
    lines = damage_of(path, capsys)
    text = "\n".join(lines)
    assert "measurement.ac is 'x'" in text
    assert "run.machine is b'\\xff'" in text
    assert "network " in text and "it differs from what was stored" in text
    assert "refer to a solver that does not exist" in text


def test_check_holds_summaries_against_their_runs(path, capsys):
    change(path, "UPDATE summary SET runs = runs + 1 WHERE task_id = (SELECT max(id) FROM task)")
    change(
        path,
        "UPDATE measurement SET top1 = 99 WHERE run_id = (SELECT id FROM run WHERE uid = '1-FIX')",
    )
    text = "\n".join(damage_of(path, capsys))
    assert "its runs differs from that of its runs" in text
    assert "run 1-FIX: its best Top-1 and test loss differ from its tests" in text


def test_check_finds_tests_after_the_end_of_a_training(path, capsys):
    change(path, "UPDATE run SET max_iter = 150 WHERE uid = '1-FIX'")
    assert "run 1-FIX: it has a test at iteration 200, after its end at 150" in damage_of(
        path, capsys
    )


def test_check_finds_no_damage_where_there_is_none(path, capsys):
    assert cli.run(db.main, ["check", "--db", str(path)]) == 0
    runs = sqlite3.connect(path).execute("SELECT count(*) FROM run").fetchone()[0]
    assert f"{path}: no damage in {runs} runs" in capsys.readouterr().out


def test_check_looks_at_every_page(path, capsys):
    with closing(sqlite3.connect(path)) as file:
        root = file.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_run_group'"
        ).fetchone()[0]
        size = file.execute("PRAGMA page_size").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(size))
    assert any(line.startswith("page: ") for line in damage_of(path, capsys))


def test_an_older_database_is_checked_after_it_was_brought_up_to_date(path, capsys):
    change(path, "UPDATE alembic_version SET version_num = '0001'")
    assert "the command info upgrades an older one" in refusal(
        db.main, f"check --db {path}", capsys
    )


def test_a_revision_that_none_can_be_is_damage(path):
    change(path, "UPDATE alembic_version SET version_num = '0002; DROP TABLE run'")
    with pytest.raises(DamagedDatabase, match="its revision is '0002; DROP TABLE run'"):
        Database.open(str(path))


def test_no_tables_are_made_in_a_file_that_lost_its_own(path):
    change(path, "PRAGMA writable_schema = ON")
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("DELETE FROM sqlite_master")
        file.commit()
    before = path.read_bytes()
    with pytest.raises(DamagedDatabase, match="but no table"):
        Database.open(str(path))
    assert path.read_bytes()[100:] == before[100:]


@pytest.mark.usefixtures("made_at_once")
def test_an_emptied_file_is_not_taken_for_a_new_database(path, tmp_path, capsys):
    os.truncate(path, 0)
    assert "it is an empty file" in refusal(db.main, f"runs --db {path}", capsys)
    assert not path.stat().st_size
    os.utime(path, (time.time() - 60,) * 2)
    assert "the LR database was an empty file; it is set up again" in record_a_run(path, tmp_path)


def test_a_folder_is_no_database(tmp_path, capsys):
    assert cli.run(db.main, ["runs", "--db", str(tmp_path)]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_a_lost_index_entry_does_not_make_a_writer_try_for_ever(path, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.database.rows.ATTEMPTS", 3)
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("UPDATE sqlite_master SET sql = replace(sql, 'key VARCHAR(32)', 'key BLOB')")
        file.execute("UPDATE policy SET key = 'lost' || id")
        file.commit()
    change(path, "CREATE TRIGGER never BEFORE INSERT ON policy BEGIN SELECT RAISE(IGNORE); END")
    with (
        Database.open(str(path)) as database,
        pytest.raises(DamagedDatabase, match="an existing row was not"),
    ):
        database.put(run("new"))


# -- trainings -------------------------------------------------------------------------------------


def test_a_training_goes_on_and_its_results_wait(path, tmp_path):
    path.write_bytes(b"no database" * 1000)
    (note,) = record_a_run(path, tmp_path)
    assert note.startswith(f"the LR database: database {path} is damaged: file is not a database; ")
    assert f"the results wait in {tmp_path / 'run'}" in note and "\n" not in note


def test_a_run_with_names_that_no_database_keeps_is_recorded(path, tmp_path):
    """They are stored with escapes, by the training and by db sync alike."""
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    (directory.path / "run.json").write_text('{"solver": "solver.prototxt"}')
    named = run(
        "new", network=dataclasses.replace(NETWORK, name="Net\x1b[2J\0\ud800"), measurements=[]
    )
    notes: list[str] = []
    recorder = Recorder(str(path), directory, lambda _: named, notes.append)
    recorder.opened(None)  # type: ignore[arg-type]
    recorder.tested([at(100, 50.0, outputs={"loss\x07": 0.5})])
    recorder.ended("finished", None)
    with Database.open(str(path)) as database:
        stored = database.get("new")
    assert stored.network.name == r"Net\x1b[2J\x00\ud800"
    assert stored.measurements[0].outputs == {r"loss\x07": 0.5}
    assert not notes


def test_a_restored_copy_is_whole(path, filled, tmp_path, capsys):
    assert cli.run(db.main, ["backup", "--db", str(path), "copy.sqlite"]) == 0
    path.write_bytes(b"no database" * 1000)
    os.replace("copy.sqlite", path)
    assert cli.run(db.main, ["check", "--db", str(path)]) == 0


# -- PostgreSQL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_databases_of_other_encodings(encoding, server):
    name = server.create(encoding=encoding)
    try:
        with Database.open(server.url(name)) as database:
            database.put(run("a", origin="caf\xe9"))
            assert database.get("a").origin == "caf\xe9"
            if encoding == "LATIN1":
                with pytest.raises(RecordError, match="LATIN1") as caught:
                    database.put(run("b", origin="\u5b57"))
                assert "\n" not in str(caught.value)
            else:
                database.put(run("b", origin="\u5b57"))
                assert database.get("b").origin == "\u5b57"
            assert not database.damage()
    finally:
        server.drop(name)


def test_what_postgresql_cannot_read_is_one_line(server):
    name = server.create(encoding="SQL_ASCII")
    try:
        with Database.open(server.url(name)) as database:
            database.put(run("a"))
            server.execute(name, "UPDATE run SET origin = E'caf\\351' WHERE uid = 'a'")
            with pytest.raises(DamagedDatabase, match="is damaged: invalid byte sequence"):
                database.get("a")
            assert any("run a: " in line for line in database.damage())
    finally:
        server.drop(name)
