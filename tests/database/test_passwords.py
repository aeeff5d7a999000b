"""Passwords appear nowhere: not in messages, not in what is printed, not in what can be written down."""

from __future__ import annotations

import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database, DatabaseUnavailable, safe_arguments, safe_url
from lrbench_caffe.database.urls import resolve_url, scrub, scrub_text
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.terminal import cli
from tests.database.server import PASSWORD

SECRET = "s3cr/et:p@ss?#w=ord&"
ENCODED = "s3cr%2Fet%3Ap%40ss%3F%23w%3Dord%26"


def assert_no_secret(text: str) -> None:
    for part in (SECRET, ENCODED, "s3cr", "ord&", "ss?#w", PASSWORD):
        assert part not in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            f"postgresql://ada:{ENCODED}@example.org:5432/lr",
            "postgresql://ada:***@example.org:5432/lr",
        ),
        (f"postgresql://ada:{SECRET}@example.org/lr", "postgresql://ada:***@example.org/lr"),
        ("postgresql://ada@example.org/lr", "postgresql://ada@example.org/lr"),
        ("postgresql://example.org:5432/lr", "postgresql://example.org:5432/lr"),
        ("postgresql://[::1]:5432/lr", "postgresql://[::1]:5432/lr"),
        ("postgresql://a:5432,b:5433/lr", "postgresql://a:5432,b:5433/lr"),
        (f"postgresql:///lr?user=ada&password={ENCODED}", "postgresql:///lr?user=ada&password=***"),
        (f"postgresql:///lr?PASSWORD={ENCODED}&host=h", "postgresql:///lr?PASSWORD=***&host=h"),
        (
            f"postgresql://a:s3cr@h/lr?sslpassword={ENCODED}",
            "postgresql://a:***@h/lr?sslpassword=***",
        ),
        ("postgresql://ada:s3cr/et", "postgresql://ada:***"),
        ("sqlite:////home/ada/lr.sqlite", "sqlite:////home/ada/lr.sqlite"),
        ("/home/ada/lr.sqlite", "/home/ada/lr.sqlite"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert safe_url(url) == shown
    assert safe_url(shown) == shown


def test_a_command_line_is_written_down_without_passwords():
    line = [
        "db",
        "--db",
        f"postgresql://ada:{ENCODED}@h/lr",
        f"--db=postgresql://ada:{SECRET}@h/lr",
        "runs",
    ]
    expected = ["db", "--db", "postgresql://ada:***@h/lr", "--db=postgresql://ada:***@h/lr", "runs"]
    assert safe_arguments(line) == expected


def failure(url: str, patience: float = 0.5) -> str:
    """The message and the whole traceback of opening a database that cannot be opened."""
    try:
        Database.open(url, patience=patience).close()
    except LRBenchError as error:
        text = f"{error}\n{traceback.format_exc()}"
        assert_no_secret(text)
        assert "\n" not in str(error)
        return str(error)
    pytest.fail("it opened")


def test_a_wrong_password_is_told_at_once_and_not_shown(server):
    name = server.create()
    message = failure(server.url(name, SECRET), patience=60)
    assert "password authentication failed" in message
    assert "lrbench:***@127.0.0.1" in message


def test_a_wrong_password_in_the_query_is_not_shown(server):
    url = f"postgresql://127.0.0.1:{server.port}/postgres?user=lrbench&password={ENCODED}"
    assert "password authentication failed" in failure(url, patience=60)


def test_a_wrong_password_in_the_environment_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)
    url = f"postgresql://lrbench@127.0.0.1:{server.port}/postgres"
    assert "password authentication failed" in failure(url, patience=60)


def test_the_right_password_works_from_everywhere(server, monkeypatch):
    name = server.create()
    with Database.open(server.url(name)) as database:
        assert database.url == f"postgresql://lrbench:***@127.0.0.1:{server.port}/{name}"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    Database.open(f"postgresql://lrbench@127.0.0.1:{server.port}/{name}").close()


def test_no_server_there():
    with pytest.raises(DatabaseUnavailable, match="refused"):
        Database.open("postgresql://ada:s3cr@127.0.0.1:1/lr", patience=0.2)
    message = failure(f"postgresql://ada:{ENCODED}@127.0.0.1:1/lr", patience=0.2)
    assert re.search(r"tried for 0\.\d s", message)


def test_no_such_host():
    assert "ada:***@" in failure(f"postgresql://ada:{ENCODED}@no-such-host.invalid/lr")


def test_no_such_database(server):
    assert "does not exist" in failure(server.url("nowhere"), patience=60)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@example.org/lr",
        "postgresql://ada:s3cr/et@example.org/lr",
        "postgresql://ada:s3cr@et@example.org:x/lr",
        f"mysql://ada:{ENCODED}@example.org/lr",
        f"sqlite://ada:{ENCODED}@example.org/lr",
        f"postgresql://ada:{ENCODED}@127.0.0.1:1/lr?no_such_option=1",
        f"postgresql://127.0.0.1:1/lr?password={ENCODED}&sslmode=nosuch",
    ],
)
def test_a_url_that_is_wrong_is_not_shown_either(url):
    failure(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://h/lr",
            "kind 'mysql' is not supported; allowed: a file, sqlite:///FILE or postgresql://",
        ),
        ("sqlite:lr.sqlite", "three slashes"),
        ("sqlite://lr.sqlite", "three slashes"),
        (
            "postgresql:lr",
            "PostgreSQL is written postgresql://USER@HOST/DATABASE, a file of such a name ./NAME",
        ),
        ("postgres:/ada:s3cr@h/lr", "PostgreSQL is written"),
        ("host=h user=ada password=s3cr", "PostgreSQL is written"),
        ("ada:s3cr@h/lr", "PostgreSQL is written"),
    ],
)
def test_other_databases_are_refused(url, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve_url(url)
    assert_no_secret(str(caught.value))


@pytest.mark.parametrize("name", ["postgres.sqlite", "./ada:x@h", "runs/a=b.sqlite", "C:lr"])
def test_files_with_odd_names_are_files(name):
    assert resolve_url(name) == f"sqlite+pysqlite:///{Path(name)}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"cannot read postgresql://ada:{ENCODED}@h:5/lr: no",
            "cannot read postgresql://ada:***@h:5/lr: no",
        ),
        (f"'postgresql://ada:{SECRET}@h/lr'; x", "'postgresql://ada:***@h/lr'; x"),
        ("postgresql:/ada:s3cr@h/lr: no such file", "***@h/lr: no such file"),
        ("--db=postgresql://ada:s3cr@h/lr", "--db=postgresql://ada:***@h/lr"),
        ("not ada:s3cr@h/lr", "not ***@h/lr"),
        ("host=h password=s3cr user=ada", "host=h password=*** user=ada"),
        ("password = 's3cr et' x", "password = *** x"),
        ("PGPASSWORD=s3cr x", "PGPASSWORD=*** x"),
        ("runs/a: solver.prototxt:3: lr 0.1", "runs/a: solver.prototxt:3: lr 0.1"),
        ("see https://h:80/x, or sqlite:////a/b", "see https://h:80/x, or sqlite:////a/b"),
    ],
)
def test_any_text_without_its_passwords(text, shown):
    assert scrub_text(text) == shown
    assert scrub_text(shown) == shown


@pytest.mark.parametrize("repeated", ["a", "a:", ";", "http://", "a;", "pass;", "a@"])
@pytest.mark.parametrize("beginning", ["", "--", "http://", "http://h/?"])
def test_long_texts_are_read_in_time(beginning, repeated):
    """With time that grew with the square of the length, these would take minutes each."""
    text = scrub_text(f"error: {beginning}{repeated * 100_000}")
    assert text.startswith("error: ")


def test_a_password_of_two_letters_is_in_every_text_by_chance():
    assert scrub("a database", ["a"]) == "a database"
    assert scrub("an abc", ["abc"]) == "an ***"


@pytest.mark.parametrize(
    "command", [["import"], ["export"], ["backup"], ["sync"], ["import-log"], ["show"]]
)
def test_a_url_in_the_wrong_place_is_shown_without_its_password(
    command, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRBENCH_DB", str(tmp_path / "lr.sqlite"))
    assert cli.run(db.main, [*command, "postgresql://ada:s3cr@h/lr"]) != 0
    assert_no_secret("".join(capfd.readouterr()))


@pytest.mark.parametrize("arguments", [["info"], ["--debug", "info"], ["merge", "--debug"]])
def test_the_command_shows_no_password_even_with_debug(server, arguments, monkeypatch, capfd):
    url = server.url("nowhere", SECRET)
    monkeypatch.setenv("LRBENCH_DB", url)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    merged = [url] if "merge" in arguments else []
    assert cli.run(db.main, [*arguments, *merged]) == 1
    out, err = capfd.readouterr()
    assert "password authentication failed" in err
    assert ("Traceback" in err) == ("--debug" in arguments)
    assert_no_secret(out + err)


def test_info_shows_the_database_and_no_password(server):
    """As a user starts it."""
    name = server.create()
    run = subprocess.run(
        [sys.executable, "-m", "lrbench_caffe.db", "info", "--db", server.url(name)],
        capture_output=True,
        text=True,
    )
    assert f"lrbench:***@127.0.0.1:{server.port}/{name}" in run.stdout
    assert_no_secret(run.stdout + run.stderr)
