"""Runs that leave a database and enter another come out as they went in; what is bad is left out by name."""

from __future__ import annotations

import dataclasses
import io
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrbench_caffe.database import Database, exchange
from lrbench_caffe.errors import InputError
from lrbench_caffe.records import SCHEMA
from tests.database import records
from tests.database.records import at, run


def exported(database: Database) -> str:
    return "".join(exchange.export_lines(database))


def import_text(database: Database, text: str, name: str = "f.jsonl") -> exchange.ImportCount:
    messages: list[str] = []
    result = exchange.ImportCount(messages.append)
    exchange.import_lines(database, io.BytesIO(text.encode()), name, result)
    assert messages == result.bad
    return result


@pytest.mark.ci
@given(record=records.runs)
@settings(max_examples=200)
def test_a_run_through_json_is_the_same_run(record):
    line = exchange.to_line(record)
    assert line.count("\n") == 1
    assert exchange.from_line(line.encode()) == record


@pytest.mark.ci
@given(many=st.lists(records.runs, min_size=1, max_size=5, unique_by=lambda r: r.uid))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_databases_have_equal_exports(many, new_url):
    """SQLite -> file -> PostgreSQL -> file -> SQLite."""
    with Database.open(new_url("sqlite")) as first:
        first.put_many(many)
        text = exported(first)
    with Database.open(new_url("postgresql")) as second:
        assert import_text(second, text).new == len(many)
        assert exported(second) == text
    with Database.open(new_url("sqlite")) as third:
        import_text(third, text)
        assert exported(third) == text


def test_importing_twice_changes_nothing(database):
    text = "".join(
        map(exchange.to_line, [run("a"), run("b", policy=records.policy("FIX(k0=0.1)"))])
    )
    assert str(import_text(database, text)) == "2 new or completed, 0 already there"
    before = database.counts(), exported(database)
    assert str(import_text(database, text)) == "0 new or completed, 2 already there"
    assert (database.counts(), exported(database)) == before


def test_bad_records_are_named_and_the_others_go_in(database):
    damaged = {**run("damaged").to_json(), "seed": 5}
    unfit = run("unfit", measurements=[at(100, 200.0)]).to_json()
    lines = [
        exchange.to_line(run("a")),
        "{not json\n",
        "\n",
        json.dumps(damaged) + "\n",
        json.dumps(unfit) + "\n",
        exchange.to_line(run("a", seed=9)),  # another run with a's uid
        "[" * 100_000 + "\n",
        '{"schema": NaN}\n',
        exchange.to_line(run("b")),
    ]
    result = import_text(database, "".join(lines), "old.jsonl")
    assert (result.new, result.present) == (2, 0)
    expected = [
        "old.jsonl:2: not JSON: ",
        "old.jsonl:4: digest: it does not match the content",
        "old.jsonl:5: measurement.top1: 200.0; allowed: 0 to 100",
        "old.jsonl:6: uid: 'a' is another run in the database: its seed differs",
        "old.jsonl:7: not usable JSON: nested too deeply",
        "old.jsonl:8: not JSON: NaN is not a JSON number",
    ]
    found = sorted(result.bad)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected)), found
    assert database.get("a") == run("a")
    assert database.get("b") == run("b")


def test_a_whole_number_with_a_point_is_the_same_parameter(database):
    pointed = run("b", seed=2).to_json()
    pointed["policy"] = {**pointed["policy"], "params": {"k0": 0.01, "k1": 0.06, "l": 2000.0}}
    del pointed["digest"]
    import_text(database, exchange.to_line(run("a")))
    policies = database.counts()["policy"]
    assert import_text(database, json.dumps(pointed)).new == 1
    assert database.counts()["policy"] == policies
    assert json.dumps(database.get("b").policy.params) == json.dumps(run("a").policy.params)


def test_a_bom_before_a_line_is_left_out(database):
    """As an editor writes it, and two such files that were put together."""
    lines = [b"\xef\xbb\xbf" + exchange.to_line(run(uid)).encode() for uid in ("a", "b")]
    result = exchange.ImportCount(lambda message: None)
    exchange.import_lines(database, lines, "f", result)
    assert (result.new, result.bad) == (2, [])


def test_bytes_that_are_no_text_are_one_bad_record(database):
    lines = [b"\xff\xfe\n", exchange.to_line(run("a")).encode()]
    result = exchange.ImportCount(lambda message: None)
    exchange.import_lines(database, lines, "f", result)
    assert (result.new, len(result.bad)) == (1, 1)


def test_a_newer_schema_ends_the_import_and_what_came_before_is_in(database):
    newer = json.dumps({**run("newer").to_json(), "schema": SCHEMA + 1}) + "\n"
    with pytest.raises(InputError, match=r"^f.jsonl:2: schema 4 is newer .* update with"):
        import_text(database, exchange.to_line(run("a")) + newer)
    assert database.get("a") == run("a")
    assert database.uids("newer") == []


def test_an_import_is_streamed(database):
    taken = []

    def lines():
        for number in range(2 * exchange.BATCH + 1):
            if number % exchange.BATCH == 0:
                taken.append(len(list(database.runs(source="measured"))))
            yield exchange.to_line(run(f"r{number:04}")).encode()

    exchange.import_lines(database, lines(), "f", exchange.ImportCount(print))
    assert taken == [
        0,
        exchange.BATCH,
        2 * exchange.BATCH,
    ]  # stored before the next line was asked for


def test_merging_takes_what_is_missing(new_url):
    with Database.open(new_url("sqlite")) as mine, Database.open(new_url("postgresql")) as theirs:
        mine.put_many(
            [run("a"), run("b", status="running", ended=None, measurements=[at(100, 90.0)])]
        )
        theirs.put_many([run("b"), run("c")])
        source = [(r.uid, r) for r in theirs.export()]
        for expected in (2, 0):
            result = exchange.ImportCount(print)
            exchange.store_records(mine, source, result)
            assert result.new == expected
        assert [mine.get(uid) for uid in "abc"] == [run("a"), run("b"), run("c")]


def test_a_backup_is_made_while_others_write(new_url, tmp_path):
    with Database.open(new_url("sqlite")) as database:
        database.put(run("a"))
        database.begin_run(dataclasses.replace(run("b"), measurements=[]))
        exchange.backup_sqlite(database, tmp_path / "copy.sqlite")
        expected = exported(database)
    assert not list(tmp_path.glob("*-wal")) and not list(tmp_path.glob("*.tmp"))
    with Database.open(str(tmp_path / "copy.sqlite")) as copy:
        assert exported(copy) == expected


def test_a_backup_that_cannot_be_written_says_so(new_url, tmp_path):
    with Database.open(new_url("sqlite")) as database, pytest.raises(Exception, match="nowhere"):
        exchange.backup_sqlite(database, tmp_path / "nowhere" / "copy.sqlite")


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError), exchange.writing_text(path) as file:
        file.write("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "old"
    with (
        pytest.raises(InputError, match="cannot write .*nowhere"),
        exchange.writing_text(tmp_path / "nowhere" / "x"),
    ):
        pass


def test_what_killed_commands_have_left_beside_a_file_is_removed(tmp_path):
    left = [
        ".x.4194399.tmp",
        ".x.4194398.tmp-journal",
    ]  # above the largest process id of Linux by default
    others = [".x.jsonl.4194399.tmp", f".x.{os.getppid()}.tmp", ".x.tmp"]
    for name in left + others:
        (tmp_path / name).touch()
    with exchange.writing_text(tmp_path / "x") as file:
        file.write("new")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".x")) == sorted(
        others
    )
    (tmp_path / left[0]).touch()
    with Database.open(f"sqlite:///{tmp_path}/lr.sqlite") as db:
        exchange.backup_sqlite(db, tmp_path / "x")
    assert not (tmp_path / left[0]).exists()
