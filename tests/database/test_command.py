"""python -m lrbench_caffe.db: what it prints, asks, writes, and its exit codes."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from lrbench_caffe import db, plot, rank, reproduce
from lrbench_caffe.database import Database
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.records import RunRecord, Start, Task
from lrbench_caffe.runs import opening
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.tabular import measurement_rows
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.run_tables import measurement_layout, run_layout, run_rows
from lrbench_caffe.terminal.tables import fitting
from tests.database import records
from tests.database.records import at, run


@pytest.fixture
def file(new_url, monkeypatch) -> str:
    """A SQLite database with two runs, which the command uses by itself."""
    url = new_url("sqlite")
    with Database.open(url) as database:
        database.put_many(
            [run("aaa1"), run("aaa2", policy=records.policy("FIX(k0=0.1)"), status="failed")]
        )
    monkeypatch.setenv("LRBENCH_DB", url)
    return url.removeprefix("sqlite:///")


@pytest.fixture
def command(file, capfd):
    """Run the command; returns exit code, standard output and error."""

    def call(*arguments: object):
        code = cli.run(db.main, [str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def task_of(record: RunRecord) -> Task:
    return Task(record.framework, record.task_type, record.dataset, record.network)


def stored(file: str) -> list[str]:
    with Database.open(file) as database:
        return sorted(record.uid for record in database.runs(source="measured"))


# -- looking ---------------------------------------------------------------------------------------


def test_info(command, file):
    code, out, _ = command("info")
    assert code == 0
    assert file in out and "revision:" in out and "measurement:" in out
    code, out, _ = command("info", "--json")
    assert json.loads(out)["run"] == len(stored(file)) + 59


def test_the_database_is_named_before_or_after_the_subcommand(command, tmp_path):
    Database.open(str(tmp_path / "x.sqlite")).close()
    for arguments in (
        ("--db", tmp_path / "x.sqlite", "info"),
        ("info", "--db", tmp_path / "x.sqlite"),
    ):
        code, out, _ = command(*arguments)
        assert code == 0
        assert "x.sqlite" in out


def test_tasks(command):
    _, out, _ = command("tasks")
    (line,) = [line for line in out.splitlines() if "digits" in line]
    assert (
        "1 x 8 x 8, 10 classes" in line
        and "95.00" in line
        and "SIN2(k0=0.01, k1=0.06, l=2000)" in line
    )
    _, out, _ = command("tasks", "--json")
    assert "digits" in [task["dataset"]["name"] for task in json.loads(out)]


def test_runs_are_filtered_and_limited(command):
    _, out, _ = command("runs", "--source", "measured")
    assert [line.split()[0] for line in out.splitlines() if line.strip().startswith("aaa")] == [
        "aaa2",
        "aaa1",
    ]
    _, out, _ = command("runs", "--status", "failed", "--json")
    assert [json.loads(line)["uid"] for line in out.splitlines()] == ["aaa2"]
    _, out, _ = command("runs", "--function", "sin2", "--source", "measured", "--json")
    assert [json.loads(line)["uid"] for line in out.splitlines()] == ["aaa1"]
    _, out, _ = command("runs", "--limit", 1, "--json")
    assert len(out.splitlines()) == 1
    code, _, err = command("runs", "--limit", 0)
    assert (code, err) == (2, "error: --limit: 0; allowed: 1 or more\n")


def test_show(command):
    code, out, _ = command("show", "aaa1")
    assert code == 0
    for text in (
        "SIN2(k0=0.01, k1=0.06, l=2000)",
        "runs/aaa1",
        "2 Convolution, 2 InnerProduct",
        "95.00",
    ):
        assert text in out
    _, out, _ = command("show", "aaa1", "--json")
    assert json.loads(out) == run("aaa1").to_json()


@pytest.mark.parametrize(
    "arguments",
    ["info", "tasks", "runs", "show aaa1", "export -", "backup copy.sqlite", "delete aaa1 --yes"],
)
def test_a_mistyped_database_is_told_and_not_made(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("--db", "folder/mistyped.sqlite", *arguments.split())
    assert (code, out) == (2, "")
    assert err == (
        "error: there is no database folder/mistyped.sqlite: no such file (trainings and imports create it)\n"
    )
    assert not Path("folder").exists() and not Path("copy.sqlite").exists()


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (rank.main, "--task 1"),
        (plot.main, "table --task 1 --out x.png"),
        (reproduce.main, "table7 --dry-run"),
    ],
)
def test_other_commands_that_read_make_none_either(tmp_path, capfd, monkeypatch, main, arguments):
    monkeypatch.chdir(tmp_path)
    assert cli.run(main, [*arguments.split(), "--db", "folder/mistyped.sqlite"]) == 2
    assert (
        capfd.readouterr().err.count("there is no database folder/mistyped.sqlite: no such file")
        == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_an_import_makes_its_database(command, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(run("new").to_json()) + "\n")
    assert command("--db", tmp_path / "new.sqlite", "import", tmp_path / "in.jsonl")[0] == 0
    assert "new" in stored(str(tmp_path / "new.sqlite"))


@pytest.mark.parametrize(
    "content",
    [
        b"I0102 03:04:05.678901  1234 caffe.cpp:197] Use CPU.\n",
        b"I20220102 03:04:05.678901  1234 solver.cpp:47] Initializing\n",
        b"2024-01-02T03:04:05Z I0102 03:04:05.678901 12 solver.cpp:239] Iteration 0, loss = 2.3\n",
        "I0102 03:04:05.678901  1234 caffe.cpp:197] Use CPU.\n".encode("utf-16"),
    ],
)
def test_a_log_of_caffe_is_for_another_command(command, file, tmp_path, content):
    path = tmp_path / "train.log"
    path.write_bytes(content)
    before = stored(file)
    code, _, err = command("import", path)
    assert (code, err) == (
        2,
        f"error: {path} is a log of Caffe; import it with: python -m lrbench_caffe.db import-log {path}\n",
    )
    assert stored(file) == before


def table_of(rows, layout, width: int) -> tuple[str, list[str]]:
    kept, _ = fitting(rows, layout, width)
    shown = [[row[i] for i in kept] for row in rows]
    return str(shown), [layout.names[i] for i in kept]


def test_the_tables_fit_80_columns_and_lose_no_digit():
    nets = [
        run(
            "c" * 32,
            policy=records.policy("SINEXP(k0=0.0001, k1=0.06, gamma=0.99994, l=2000)"),
            seed=12345678,
        ),
        run("d" * 32, seed=None, start=Start("unknown"), status="diverged"),
    ]
    shown, names = table_of(run_rows(nets), run_layout(run_rows(nets)), 80)
    assert names == ["uid", "policy", "start", "top1", "status"]  # the starts differ
    assert "95.00" in shown
    rows = measurement_rows(nets[0])
    assert table_of(rows, measurement_layout(rows), 80)[1][:5] == [
        "iteration",
        "lr",
        "top1",
        "top5",
        "ac",
    ]
    tests = [at(100, None, top5=None, ac=None, cd=None, cdac=None, outputs={"l2": 0.25})]
    other = run("e", measurements=tests, task_type="other")
    rows = measurement_rows(other)
    shown, names = table_of(rows, measurement_layout(rows), 80)
    assert names == ["iteration", "lr", "test_loss", "train_loss", "ld", "s", "l2"]
    assert "0.25" in shown
    rows = run_rows([other])
    assert "loss" in table_of(rows, run_layout(rows), 80)[1]
    assert "top1" not in table_of(rows, run_layout(rows), 60)[1]


def test_columns_are_chosen(command):
    code, out, _ = command("runs", "--source", "measured", "--columns", "uid,start,loss")
    assert code == 0
    assert out.split()[:3] == ["uid", "start", "loss"]
    assert "scratch" in out
    code, _, err = command("show", "aaa1", "--columns", "top2")
    assert (code, "--columns: unknown column 'top2'" in err) == (2, True)


def test_the_best_policy_of_a_net_that_does_not_classify_is_that_of_the_lowest_loss(command, file):
    network = dataclasses.replace(records.NETWORK, name="Regression", digest="r")
    with Database.open(file) as database:
        for text, loss in (("FIX(k0=0.1)", 0.5), ("FIX(k0=0.2)", 0.25), ("FIX(k0=0.3)", 0.75)):
            tests = [at(100, None, test_loss=loss)]
            database.put(
                run(
                    text,
                    network=network,
                    policy=records.policy(text),
                    task_type="other",
                    measurements=tests,
                )
            )
    _, out, _ = command("tasks")
    (line,) = [line for line in out.splitlines() if "Regression" in line]
    assert "0.2500" in line and "FIX(k0=0.2)" in line


@pytest.mark.parametrize(
    ("uid", "message"),
    [("zzz", "no run 'zzz'"), ("aaa", "several runs begin with 'aaa', among them aaa1 and aaa2")],
)
def test_a_uid_must_name_one_run(command, uid, message):
    code, _, err = command("show", uid)
    assert code == 2
    assert message in err


# -- deleting --------------------------------------------------------------------------------------


def test_delete_needs_to_be_told_what(command):
    for arguments in (["delete", "--yes"], ["delete", "aaa1", "--status", "failed", "--yes"]):
        code, _, err = command(*arguments)
        assert code == 2
        assert "either uids, or --task" in err


def test_delete_asks_and_does_nothing_without_an_answer(command, file):
    code, _, err = command("delete", "aaa1")
    assert code == 2
    assert "--yes deletes without asking" in err
    assert stored(file) == ["aaa1", "aaa2"]


@pytest.mark.parametrize(
    ("answer", "left"), [("n", ["aaa1", "aaa2"]), ("", ["aaa1", "aaa2"]), ("y", ["aaa2"])]
)
def test_delete_does_what_is_answered(command, file, monkeypatch, answer, left):
    terminal = io.StringIO(answer + "\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, _ = command("delete", "aaa1")
    assert "digits, LeNet: SIN2(k0=0.01, k1=0.06, l=2000)" in out
    assert "delete 1 run from" in out
    assert code == (0 if answer == "y" else 1)
    assert stored(file) == left


def test_delete_by_filter(command, file):
    code, out, _ = command("delete", "--status", "failed", "--yes")
    assert (code, stored(file)) == (0, ["aaa1"])
    assert out.startswith("deleted: 1 run from")
    assert command("delete", "--status", "failed", "--yes")[:2] == (0, "no such run\n")


# -- sharing ---------------------------------------------------------------------------------------


def test_export_and_import(command, file, tmp_path):
    code, out, _ = command("export", tmp_path / "out.jsonl")
    assert code == 0
    assert f"{tmp_path / 'out.jsonl'}: 61 runs" in out
    assert command("export", "-")[1] == (tmp_path / "out.jsonl").read_text()
    code, out, _ = command("--db", tmp_path / "new.sqlite", "import", tmp_path / "out.jsonl")
    assert code == 0
    assert "2 new or completed, 59 already there" in out
    assert stored(str(tmp_path / "new.sqlite")) == ["aaa1", "aaa2"]


def test_import_tells_bad_lines_and_exits_with_1(command, file, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n" + json.dumps(run("new").to_json()) + "\n")
    code, _, err = command("import", path)
    assert code == 1
    assert f"error: {path}:1: schema: None; allowed: 1 to 3\n" in err
    assert f"{path}: 1 new or completed, 0 already there, 1 refused" in err
    assert "new" in stored(file)


def test_import_from_standard_input(file):
    line = json.dumps(run("piped").to_json()) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "lrbench_caffe.db", "import", "-"],
        input=line,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "standard input: 1 new or completed, 0 already there\n"
    assert "piped" in stored(file)


def test_import_of_a_newer_schema_or_of_nothing(command, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**run("x").to_json(), "schema": 99}) + "\n")
    code, _, err = command("import", path)
    assert code == 2
    assert f"error: {path}:1: schema 99 is newer than this program" in err
    code, _, err = command("import", tmp_path / "nowhere.jsonl")
    assert code == 2
    assert "cannot read" in err and "nowhere.jsonl" in err


def test_merge(command, file, new_url):
    other = new_url("sqlite")
    with Database.open(other) as database:
        database.put(run("theirs"))
    code, out, _ = command("merge", other)
    assert code == 0
    assert "1 new or completed, 59 already there" in out
    assert stored(file) == ["aaa1", "aaa2", "theirs"]


def test_what_does_not_count_on_a_platform_does_not_count_where_it_is_merged(
    command, file, new_url, kind
):
    other = new_url(kind)
    told = {"far": ("unverified", "far above all others"), "spam": ("hidden", None)}
    with Database.open(other) as platform:
        platform.put(run("good", seed=5))
        platform.put_many([run(uid, seed=6, measurements=[at(300, 99.9)]) for uid in told])
        for uid, (standing, doubt) in told.items():
            Platform(platform).set_standing([uid], standing, doubt)
    code, out, _ = command("merge", other)
    assert (code, "3 new" in out) == (0, True)
    with Database.open(file) as database:
        assert Platform(database).standings() == told
        task = database.find_task(task_of(database.get("good")))
        (best, *_) = database.summaries(task.id, order_by="top1", limit=1)
        assert (best.top1.mean, best.top1.n) == (95.0, 2)  # of aaa1 and good
        Platform(database).set_standing(list(told), "shown")  # as an admin decides here
    assert "0 new" in command("merge", other)[1]
    with Database.open(file) as database:
        assert Platform(database).standings() == {}


def test_an_export_says_that_it_lacks_what_does_not_count(command, file, tmp_path):
    assert command("export", tmp_path / "all.jsonl")[2] == ""
    with Database.open(file) as database:
        Platform(database).set_standing(["aaa1"], "hidden")
    told = "note: 1 of the runs are hidden or unverified here"
    assert told in command("export", tmp_path / "more.jsonl")[2]
    code, out, err = command("export", "-")
    assert (code, told in err, told in out) == (0, True, False)
    assert command("backup", tmp_path / "copy.sqlite")[2] == ""  # has all
    with Database.open(str(tmp_path / "copy.sqlite")) as copy:
        assert Platform(copy).standings() == {"aaa1": ("hidden", None)}


def test_merge_makes_no_database(command, tmp_path):
    code, _, err = command("merge", tmp_path / "nowhere.sqlite")
    assert code == 2
    assert "there is no database" in err
    assert not (tmp_path / "nowhere.sqlite").exists()


def test_backup_of_sqlite_is_a_database(command, tmp_path):
    path = tmp_path / "copy.sqlite"
    assert command("backup", path)[0] == 0
    assert stored(str(path)) == ["aaa1", "aaa2"]
    code, _, err = command("backup", path)
    assert code == 2
    assert "--force replaces it" in err
    assert command("backup", path, "--force")[0] == 0


def test_backup_of_postgresql_can_be_restored(command, new_url, tmp_path):
    url = new_url("postgresql")
    with Database.open(url) as database:
        database.put_many([run("p1"), run("p2", status="running", ended=None)])
        expected = list(database.export())
    assert command("--db", url, "backup", tmp_path / "all.jsonl")[0] == 0
    restored = new_url("postgresql", empty=True)
    assert command("--db", restored, "import", tmp_path / "all.jsonl")[0] == 0
    with Database.open(restored) as database:
        assert list(database.export()) == expected


@pytest.mark.parametrize("place", [".", "", "/"])
def test_a_backup_to_a_folder_is_refused(command, place):
    code, _, err = command("backup", place)
    assert (code, "is not a regular file and cannot be replaced" in err) == (2, True), err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("number", ["99999999999999999999", "0", "-1", "9007199254740993", "x"])
@pytest.mark.parametrize("arguments", [["runs"], ["delete", "--yes"], ["pull", "http://x"]])
def test_a_task_that_no_database_can_have_is_refused(command, arguments, number):
    with pytest.raises(SystemExit) as ended:
        command(*arguments, "--task", number)
    assert ended.value.code == 2


def test_the_numbers_of_tasks_are_told(command, capfd):
    with pytest.raises(SystemExit):
        command("runs", "--task", "99999999999999999999")
    words = "argument --task: 99999999999999999999; allowed: 1 to 9007199254740992"
    assert words in capfd.readouterr().err
    assert command("runs", "--task", "9007199254740992")[0] == 0


def test_a_backup_replaces_neither_the_database_nor_one_in_use(command, file, tmp_path):
    link = tmp_path / "link.sqlite"
    link.symlink_to(file)
    for path in (file, link, f"{file}-wal"):
        Path(path).touch()
        code, _, err = command("backup", path, "--force")
        assert (code, "is the database itself" in err) == (2, True), err
    used = tmp_path / "used.sqlite"
    with Database.open(str(used)) as other:
        other.put(run("theirs"))
        code, _, err = command("backup", used, "--force")
        assert (code, "is a database in use, or one that was not closed" in err) == (2, True)
    assert stored(str(used)) == ["theirs"]
    assert command("backup", used, "--force")[0] == 0
    assert stored(str(used)) == stored(file) == ["aaa1", "aaa2"]
    (tmp_path / "new.sqlite-wal").write_bytes(b"left by a crash")
    assert command("backup", tmp_path / "new.sqlite")[0] == 2


def test_an_export_replaces_no_database_and_no_file_unless_told(command, file, tmp_path):
    code, _, err = command("export", file, "--force")
    assert (code, "is the database itself" in err) == (2, True)
    other = tmp_path / "other.sqlite"
    Database.open(str(other)).close()
    code, _, err = command("export", other, "--force")
    assert (code, "is a SQLite database, which is not replaced" in err) == (2, True)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    code, _, err = command("export", notes)
    assert (code, err) == (2, f"error: {notes} exists; --force replaces it\n")
    assert notes.read_text() == "mine"
    assert command("export", notes, "--force")[0] == 0
    assert command("export", tmp_path, "--force")[0] == 2
    assert stored(file) == ["aaa1", "aaa2"]


def test_a_conflict_is_counted_and_told_with_its_line(command, file, tmp_path):
    path = tmp_path / "in.jsonl"
    other = run("aaa1", measurements=[at(100, 12.5)])
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in (run("new"), other)))
    code, _, err = command("import", path)
    assert code == 1
    assert (
        f"error: {path}:2: uid: 'aaa1' is in the database with other content: its measurement at"
        in err
    )
    assert "1 new or completed, 0 already there, 1 refused (1 in conflict with stored runs)" in err


def test_text_for_a_number_is_one_bad_line(command, file, tmp_path):
    value = run("text").to_json()
    value["measurements"][0]["top1"] = "99"
    del value["digest"]
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(value) + "\n" + json.dumps(run("new").to_json()) + "\n")
    code, _, err = command("import", path)
    assert code == 1
    assert f"error: {path}:1: measurement.top1: '99'; allowed: a number\n" in err
    assert "new" in stored(file)


def test_a_value_that_the_database_refuses_is_one_bad_line(
    command, file, tmp_path, monkeypatch, new_url
):
    monkeypatch.setattr("lrbench_caffe.database.store.checked_run", lambda record: record)
    path = tmp_path / "in.jsonl"
    lines = [run("good"), run("bad", max_iter=-5), run("fine")]
    monkeypatch.setattr("lrbench_caffe.database.checks.checked_policy", lambda record: record)
    monkeypatch.setattr("lrbench_caffe.database.checks.checked_run", lambda record: record)
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in lines))
    for url in (file, new_url("postgresql")):
        code, _, err = command("--db", url, "import", path)
        assert code == 1
        assert f"error: {path}:2: database " in err
        assert "2 new or completed, 0 already there, 1 refused" in err


def test_merge_writes_nothing_to_its_source(command, file, tmp_path, new_url):
    other = new_url("sqlite").removeprefix("sqlite:///")
    with Database.open(other) as database:
        database.delete([record.uid for record in database.runs()])
        database.put(run("theirs"))
    copy = tmp_path / "copy.sqlite"
    assert command("--db", other, "backup", copy)[0] == 0
    before = copy.read_bytes()
    assert command("merge", copy)[0] == 0
    assert copy.read_bytes() == before
    assert "theirs" in stored(file)
    (tmp_path / "empty.sqlite").touch()
    code, _, err = command("merge", tmp_path / "empty.sqlite")
    assert (code, "it is empty, not an LR database" in err) == (1, True)
    assert (tmp_path / "empty.sqlite").read_bytes() == b""
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    code, _, err = command("merge", copy)
    assert (code, "it is at revision 0000, and this program reads 0003" in err) == (1, True)


def test_an_unknown_function_is_told_with_the_nearest(command):
    for name in ("runs", "delete"):
        code, _, err = command(name, "--function", "sine2")
        assert code == 2
        assert "--function: unknown LR function 'sine2'; did you mean SIN2?" in err
    assert command("runs", "--function", "fix;sinexp")[0] == 0


# -- run directories -------------------------------------------------------------------------------


def waiting(path: Path, uid: str, **settings: object) -> RunDirectory:
    """A run directory as a training without its database leaves it."""
    record = run(uid, status="running", ended=None, measurements=[]).to_json()
    del record["measurements"]
    directory = RunDirectory(path)
    directory.lock()
    known = {"solver": "a.prototxt", "record": record, "status": "finished", "reason": None}
    directory.write({**known, **settings})
    for measurement in run(uid).measurements:
        directory.add_measurement(measurement)
    return directory


def test_sync_brings_what_waits_in_once(command, file, tmp_path):
    waiting(tmp_path / "runs" / "one", "w1", ended=1060.0).release()
    waiting(tmp_path / "runs" / "two", "w2", status="diverged", reason="the loss is NaN").release()
    code, out, _ = command("sync", tmp_path / "runs")
    assert (code, out) == (0, "run directories: 2 new or completed, 0 already there\n")
    with Database.open(file) as database:
        assert database.get("w1") == run("w1")
        assert (database.get("w2").status, database.get("w2").reason) == (
            "diverged",
            "the loss is NaN",
        )
        assert database.get("w2").ended is not None
    _, out, _ = command("sync", tmp_path / "runs" / "one", tmp_path / "runs")
    assert out == "run directories: 0 new or completed, 2 already there\n"


def test_sync_leaves_a_running_training_alone_and_takes_a_killed_one_for_failed(
    command, file, tmp_path
):
    running = waiting(tmp_path / "runs" / "now", "w1", status="running")
    waiting(tmp_path / "runs" / "killed", "w2", status="running").release()
    code, out, _ = command("sync", tmp_path / "runs")
    running.release()
    assert code == 0
    assert "now: still running, left alone" in out
    assert stored(file) == ["aaa1", "aaa2", "w2"]
    with Database.open(file) as database:
        assert database.get("w2").status == "failed"
        assert "killed" in database.get("w2").reason
        # Resumed, it ends well: that is the later end.
        database.begin_run(dataclasses.replace(run("w2"), measurements=[]))
        database.end_run("w2", "finished", None, 9e9)
    waiting(tmp_path / "runs" / "killed", "w2", ended=9e9).release()
    command("sync", tmp_path / "runs")
    with Database.open(file) as database:
        assert database.get("w2").status == "finished"


def test_sync_takes_the_base_lr_that_a_run_began_with(command, file, tmp_path):
    """Resumed with an edited solver, the first version recorded the base_lr of the edit."""
    fields = {"fingerprint": {"base_lr": "base_lr: 0.01"}, "ended": 1060.0}
    edited = dataclasses.replace(records.SOLVER, base_lr=0.005)
    with Database.open(file) as database:
        database.begin_run(run("w1"))
    record = run("w1", solver=edited, status="running", ended=None).to_json()
    waiting(
        tmp_path / "runs" / "one", "w1", record={**record, "measurements": []}, **fields
    ).release()
    code, out, _ = command("sync", tmp_path / "runs")
    assert (code, out) == (0, "run directories: 1 new or completed, 0 already there\n")
    with Database.open(file) as database:
        assert database.get("w1") == run("w1")


def test_sync_tells_what_it_cannot_read_and_takes_the_rest(command, file, tmp_path):
    waiting(tmp_path / "runs" / "good", "w1").release()
    waiting(tmp_path / "runs" / "old", "w2", record=None).release()
    waiting(
        tmp_path / "runs" / "odd", "w3", record={**asdict(run("w3")), "source": "guessed"}
    ).release()
    waiting(tmp_path / "runs" / "torn", "w4").release()
    (tmp_path / "runs" / "torn" / "run.json").write_text("{")
    code, out, err = command("sync", tmp_path / "runs")
    assert code == 1
    assert "old: not recorded for the database (--no-db), left alone" in out
    assert err.count("torn holds no run: ") == 1
    assert "odd: run.json: record: source: 'guessed'; allowed" in err
    assert stored(file) == ["aaa1", "aaa2", "w1"]
    assert command("sync", tmp_path / "nowhere")[0] == 2
    assert command("sync", tmp_path / "runs" / "old")[0] == 0


# -- the rest --------------------------------------------------------------------------------------


def test_every_subcommand_has_help(capsys):
    names = "info tasks runs show delete export import merge backup sync import-log"
    for name in names.split():
        with pytest.raises(SystemExit) as ended:
            db.main([name, "--help"])
        assert ended.value.code == 0
        assert "--db URL" in capsys.readouterr().out


def test_help_and_train_load_no_database_library():
    """They would wait for it for nothing."""
    code = (
        "import sys, lrbench_caffe.train, lrbench_caffe.db, lrbench_caffe.database.urls\n"
        "lrbench_caffe.db.parser().format_help()\n"
        "print([n for n in ('sqlalchemy', 'alembic', 'psycopg2', 'caffe') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_an_up_to_date_database_loads_neither_alembic_nor_matplotlib(file):
    code = (
        "import sys; from lrbench_caffe.database import Database; Database.open().close()\n"
        "print([n for n in ('alembic', 'matplotlib', 'caffe') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"


def test_a_measurement_that_is_not_there_is_a_dash(command, file):
    with Database.open(file) as database:
        database.put(run("dash", measurements=[at(100, None, cdac=None), at(200, 90.0)]))
    _, out, _ = command("show", "dash")
    (line,) = [line for line in out.splitlines() if line.strip().startswith("100 ")]
    assert line.split()[3] == "-"


# -- a database that is not there yet --------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync",),
        ("sync", "missing"),
        ("merge", "missing.sqlite"),
        ("import", "missing.jsonl"),
        ("import", "empty.jsonl"),
        ("import-log", "missing.log"),
        ("import-log", "empty.jsonl"),
    ],
)
def test_nothing_to_write_makes_no_database(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("")
    code, _, err = command("--db", "typo.sqlite", *arguments)
    assert code != 0 or arguments == ("import", "empty.jsonl")
    assert len(err.splitlines()) == (code != 0) or arguments[0] == "import-log"
    assert not list(tmp_path.glob("typo*"))


@pytest.mark.parametrize("name", ["import", "import-log", "merge"])
def test_the_folder_of_a_named_database_is_not_made(command, file, tmp_path, name):
    folder = tmp_path / "nodir"
    code, out, err = command("--db", folder / "x.sqlite", name, file)
    assert (code, out) == (2, "")
    assert err == f"error: cannot create the database {folder / 'x.sqlite'}: no such folder\n"
    assert not folder.exists()


def test_a_new_database_waits_for_nobody(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(opening, "SILENCE", 0.0)
    path = tmp_path / "new.sqlite"
    open_at_terminal(str(path), to_write=True).close()
    assert capsys.readouterr().err == f"creating the database {path}\n"


def test_the_best_policy_of_a_task_is_from_scratch_where_one_is(command, file):
    nets = [
        dataclasses.replace(records.NETWORK, name=name, digest=name) for name in ("Both", "Tuned")
    ]
    weights = Start("weights", "a" * 32, 4, 4)
    with Database.open(file) as database:
        for net, text, top1, start in (
            (nets[0], "FIX(k0=0.1)", 95.2, Start()),
            (nets[0], "FIX(k0=0.001)", 95.4, weights),
            (nets[1], "FIX(k0=0.002)", 96.0, weights),
        ):
            policy = records.policy(text)
            database.put(
                run(
                    net.name + text,
                    network=net,
                    policy=policy,
                    start=start,
                    measurements=[at(100, top1)],
                )
            )
    lines = command("tasks")[1].splitlines()
    (both,), (tuned,) = ([line for line in lines if name in line] for name in ("Both", "Tuned"))
    assert "95.20" in both and "scratch" in both and "FIX(k0=0.1)" in both
    assert "96.00" in tuned and "weights" in tuned and "FIX(k0=0.002)" in tuned


def test_runs_of_different_weights_have_different_names_in_the_table():
    starts = [Start("weights", c * 32, 4, 4, name="x.caffemodel") for c in "ab"]
    rows = run_rows([run(c, start=start) for c, start in zip("abc", [*starts, starts[0]])])
    assert [row[rows[0].index("start")] for row in rows[1:]] == [
        "weights 1",
        "weights 2",
        "weights 1",
    ]
    assert "start" in table_of(rows, run_layout(rows), 80)[1]
