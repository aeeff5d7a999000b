"""Runs go to a platform and come from it: push, pull, and what a break in between does."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.database.exchange import to_line
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.terminal import cli, db_share
from lrbench_caffe.web import __main__ as web
from tests.database.records import at, run
from tests.web.serving import Client


@pytest.fixture
def command(capsys, monkeypatch):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(db.main, [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def mine(new_url) -> str:
    return new_url("sqlite").removeprefix("sqlite:///")


def test_what_is_pushed_is_there_once_and_comes_back_with_its_contributor(
    serve, token, database, command, mine, new_url, monkeypatch
):
    monkeypatch.setenv("LRBENCH_TOKEN", token("ada", "write"))
    monkeypatch.setattr(db_share, "PAGE", 10)
    count = 23  # two whole pages, and a part of one
    with Database.open(mine) as own:
        own.put_many([run(f"r{i}", seed=i) for i in range(count)])
        own.put(run("under way", seed=999, status="running", ended=None))
    address = serve()
    code, out, err = command("--db", mine, "push", address, "--note", "on a laptop")
    assert (code, err) == (0, "")
    assert f"{count} new, 0 already there, 0 refused" in out
    code, out, _ = command("--db", mine, "push", address)
    assert f"0 new, {count} already there, 0 refused" in out
    assert sum(r.source == "measured" for r in database.runs()) == count
    sent = database.get("r7").contribution
    assert (sent.contributor, sent.note) == ("ada", "on a laptop")

    theirs = new_url("sqlite").removeprefix("sqlite:///")
    code, out, _ = command("--db", theirs, "pull", address, "--contributor", "ada")
    assert (code, f"{count} new or completed, 0 already there" in out) == (0, True)
    code, out, _ = command("--db", theirs, "pull", address, "--contributor", "nobody")
    assert "0 new or completed, 0 already there" in out
    with Database.open(theirs) as other:
        assert other.get("r7") == database.get("r7")
        # What came from others is not pushed as one's own.
        other.put(run("own", seed=5000))
    code, out, _ = command("--db", theirs, "push", address)
    assert "1 new, 0 already there, 0 refused" in out
    # Mine stays mine where it comes back.
    command("--db", mine, "pull", address)
    with Database.open(mine) as own:
        assert own.get("r7").contribution is None


def test_folders_and_the_machine_stay_at_home_unless_asked_for(
    serve, token, database, command, mine, monkeypatch
):
    monkeypatch.setenv("LRBENCH_TOKEN", token("ada", "write"))
    address = serve()
    told = "/home/ada/runs/r1/losses.csv: disk full on node7"
    first = run("r1", origin="/home/ada/runs/r1", machine="node7", status="failed", reason=told)
    second = run("r2", seed=2, origin="/home/ada/runs/r2", machine="node7")
    with Database.open(mine) as own:
        own.put_many([first, second])
    assert command("--db", mine, "push", address)[0] == 0
    sent = database.get("r1")
    assert (sent.origin, sent.machine) == ("r1", None)
    assert sent.reason == "r1/losses.csv: disk full on the machine"
    for page in ("/runs/r1", "/api/v1/runs/r1", "/api/v1/runs", "/api/v1/export", "/runs"):
        text = Client(address).get(page).text
        assert "r1" in text and "node7" not in text and "/home" not in text, page
    with Database.open(mine) as own:
        assert (own.get("r1"), own.get("r2")) == (first, second)
    # What is there already stays; taken back, it can be sent otherwise.
    _, out, _ = command("--db", mine, "push", address, "--keep-places")
    assert "0 new, 2 already there" in out
    assert database.get("r2").origin == "r2"
    (batch,) = Platform(database).batches()
    Platform(database).take_back(batch.contribution.batch)
    assert command("--db", mine, "push", address, "--keep-places")[0] == 0
    again = database.get("r1")
    assert (again.origin, again.machine, again.reason) == (first.origin, "node7", told)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_a_platform_trained_itself_does_not_become_ones_own(
    serve, token, database, command, mine, monkeypatch
):
    monkeypatch.setenv("LRBENCH_TOKEN", token("ada", "write"))
    address = serve()
    database.put(run("theirs"))
    for told in ("1 new or completed", "0 new or completed"):
        code, out, err = command("--db", mine, "pull", address)
        assert (code, err, told in out) == (0, "", True)
    with Database.open(mine) as own:
        assert own.get("theirs").contribution.contributor == address
        assert {r.contribution for r in own.runs(source="paper")} == {None}
        assert len(Platform(own).batches()) == 1
        own.put(run("own", seed=2))
    code, out, _ = command("--db", mine, "push", address)
    assert "1 new, 0 already there" in out


def test_refused_and_doubted_runs_are_told(serve, token, command, mine, monkeypatch):
    monkeypatch.setenv("LRBENCH_TOKEN", token("ada", "write"))
    address = serve()
    with Database.open(mine) as own:
        own.put(run("first"))
    assert command("--db", mine, "push", address)[0] == 0
    with Database.open(mine) as own:
        own.put(run("far", seed=2, measurements=[at(300, 99.9)]))
    code, out, err = command("--db", mine, "push", address)
    assert (code, "1 new" in out) == (0, True)
    assert "note: run far: Top-1 99.90 % is far above 95.00 %" in err
    monkeypatch.setenv("LRBENCH_TOKEN", token("bob", "write"))
    with Database.open(mine) as own:
        own.put(run("first", ended=5000.0, measurements=[at(300, 96.0)]))
    code, out, err = command("--db", mine, "push", address)
    assert (code, "1 refused" in out) == (1, True)
    assert "run first: uid: 'first' is not a run of 'bob'; allowed: own runs" in err


def test_refused_lines_have_their_numbers_in_the_body(serve, token):
    ada = Client(serve(), token("ada", "write"))
    lines = [b"", b" ", b"{bad", to_line(run("a")).strip().encode(), b"", b"[]"]
    answers = ada.post("/api/v1/runs", b"\n".join(lines)).json["answers"]
    assert [(a["line"], a["result"]) for a in answers] == [
        (3, "refused"), (4, "new"), (6, "refused"),
    ]  # fmt: skip


def test_lines_of_many_pages_have_their_numbers(serve, token, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.web.api.BATCH", 2)
    ada = Client(serve(), token("ada", "write"))
    # Pages end after lines 3, 6 and 7.
    answers = ada.post("/api/v1/runs", b"\n1\n2\n\n3\n4\n5\n").json["answers"]
    assert [a["line"] for a in answers] == [2, 3, 5, 6, 7]


@pytest.mark.parametrize("days", ["0", "-1", "nan", "1e9", "1000001"])
def test_the_days_of_a_token_have_a_range(url, capsys, days):
    assert cli.run(web.main, ["token", "add", "x", f"--days={days}", "--db", url]) == 2
    told = capsys.readouterr().err
    assert told == f"error: --days: {float(days):.15g}; allowed: more than 0, up to 1000000\n"
    assert cli.run(web.main, ["token", "add", "x", "--days=1000000", "--db", url]) == 0


def test_a_token_is_needed_and_no_message_has_it(
    serve, token, command, mine, monkeypatch, tmp_path
):
    monkeypatch.delenv("LRBENCH_TOKEN", raising=False)
    address = serve()
    with Database.open(mine) as own:
        own.put(run("a"))
    code, _, err = command("--db", mine, "push", address)
    assert (code, "a token is missing" in err) == (2, True)
    monkeypatch.setenv("LRBENCH_TOKEN", "lrb_wrong")
    code, _, err = command("--db", mine, "push", address)
    assert (code, "answers 401: the token is unknown, expired or revoked" in err) == (1, True)
    assert "lrb_wrong" not in err
    file = tmp_path / "token"
    file.write_text(token("ada", "write") + "\n")
    assert command("--db", mine, "push", address, "--token-file", file)[0] == 0
    code, _, err = command("--db", mine, "push", address, "--token-file", tmp_path / "none")
    assert (code, f"cannot read {tmp_path}/none" in err) == (2, True)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_who_ends_in_the_middle_of_an_upload_is_no_fault_of_the_server(
    serve, token, database, caplog
):
    place = urlsplit(serve())
    secret, line = token("ada", "write"), to_line(run("a")).encode()
    head = "POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
    with caplog.at_level("INFO"):
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(f"{head}Authorization: Bearer {secret}\r\n\r\n".encode() + line)
            time.sleep(0.3)  # the server waits for the rest
        deadline = time.monotonic() + 30
        while '"POST"' not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    (asked,) = [json.loads(r.message) for r in caplog.records if r.name.endswith(".access")]
    assert (asked["method"], asked["status"], asked["token"]) == ("POST", 400, "ada")
    assert "Traceback" not in caplog.text
