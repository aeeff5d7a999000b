"""Answers that are remembered are those of a server that remembers nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lrbench_caffe.database.platform import Platform
from lrbench_caffe.records import Contribution
from lrbench_caffe.web import remembering
from lrbench_caffe.web.pages import tasks
from lrbench_caffe.web.remembering import KnownResults
from tests.database.records import at, policy, run
from tests.web.serving import Client

FIX = policy("FIX(k0=0.01)")
IN_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)  # as in any


@pytest.fixture
def number(database):
    """The number of a task with one policy."""
    database.put(run("a"))
    (found,) = set(database.stamps()) - {1, 2, 3}
    return found


@pytest.fixture
def made(monkeypatch):
    """The pages that are really made, by template."""
    names = []
    real = tasks.page

    def counted(request, template, *others):
        names.append(template)
        return real(request, template, *others)

    monkeypatch.setattr(tasks, "page", counted)
    return names


def pages(number):
    ranked = f"/tasks/{number}"
    return (
        "/",
        ranked,
        f"{ranked}?weights=top1=2,iterations=1",
        f"{ranked}?pareto=true",
        f"{ranked}/ranking.csv",
        "/api/v1/tasks",
        f"/api/v1{ranked}",
        f"/api/v1{ranked}/ranking",
    )


CHANGES = {
    "another policy": lambda d: d.put(run("b", policy=FIX, seed=2)),
    "a run begins": lambda d: d.begin_run(run("c", policy=FIX, seed=3)),
    "a better test": lambda d: d.add_measurements("a", [at(400, 99.0)]),
    "hidden": lambda d: Platform(d).set_standing(["a"], "hidden", "why not"),
    "an upload": lambda d: d.put(
        run("d", policy=FIX, contribution=Contribution("x", "ada", None, None, 5.0))
    ),
}


@pytest.mark.ci
@pytest.mark.parametrize("change", CHANGES)
def test_every_page_is_new_after_a_change(serve, database, number, change):
    remembers = Client(serve())
    for path in pages(number):
        first, again = remembers.get(path), remembers.get(path)
        assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
    CHANGES[change](database)
    new = Client(serve())
    for path in pages(number):
        here, fresh = remembers.get(path), new.get(path)
        assert (here.status, here.text.replace(remembers.url, new.url)) == (
            fresh.status,
            fresh.text,
        ), path


@IN_SQLITE
def test_a_page_is_made_once(serve, number, made):
    client = Client(serve())
    client.get("/")
    client.get("/")
    client.get(f"/tasks/{number}")
    client.get(f"/tasks/{number}")
    assert made == ["tasks.html", "task.html"]
    client.get(f"/tasks/{number}?top=1")
    assert made == ["tasks.html", "task.html", "task.html"]


@IN_SQLITE
def test_a_browser_that_has_the_page_is_told_so(serve, database, number):
    client = Client(serve())
    first = client.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    database.put(run("b", policy=FIX, seed=2))
    assert client.get("/", If_None_Match=first.headers["ETag"]).status == 200


@IN_SQLITE
def test_who_has_a_token_gets_pages_of_their_own(serve, token, number, made):
    address = serve()
    visitor, ada = Client(address), Client(address)
    ada.sign_in(token("ada", "write"))
    bearer = Client(address, token("bob", "read"))
    for _ in range(2):
        assert "ada (write)" not in visitor.get("/").text
        answer = ada.get("/")
        assert "ada (write)" in answer.text and answer.headers["Cache-Control"] == "no-store"
        assert "bob (read)" in bearer.get("/").text
    assert len(made) == 1 + 2 + 2


@IN_SQLITE
def test_a_private_server_remembers_nothing(serve, token, number, made):
    address = serve(private=True)
    client = Client(address, token("ada", "read"))
    assert client.get("/").status == client.get("/").status == 200
    assert len(made) == 2
    assert Client(address).get("/").status == 401


@IN_SQLITE
def test_no_page_of_one_address_is_given_at_another(serve, number):
    client = Client(serve())
    client.get("/")
    assert "http://other.example/tasks/" in client.get("/", Host="other.example").text
    assert "other.example" not in client.get("/").text


@IN_SQLITE
def test_errors_are_not_remembered(serve, database):
    client = Client(serve())
    (later,) = {max(database.stamps()) + 1}
    assert client.get(f"/tasks/{later}").status == 404
    database.put(run("a"))
    assert client.get(f"/tasks/{later}").status == 200
    assert client.get(f"/tasks/{later}?by=nothing").status == 400


def test_many_who_ask_at_once_have_one_page_made(serve, database, number, made):
    client = Client(serve())
    for _ in range(3):
        made.clear()
        database.put(run(f"b{len(database.uids('', 99))}", policy=FIX, seed=2))
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: client.get(f"/tasks/{number}"), range(40)))
        assert {a.status for a in answers} == {200} and len({a.body for a in answers}) == 1
        assert made == ["task.html"]


@IN_SQLITE
def test_a_database_that_is_away_is_told_and_then_forgotten(serve, number, monkeypatch):
    from lrbench_caffe.database.errors import DatabaseUnavailable
    from lrbench_caffe.database.store import Database

    client = Client(serve())
    assert client.get("/").status == 200

    def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "stamps", away)
        patched.setattr(Database, "runs_of_tasks", away)
        assert client.get("/").status == 503
    assert client.get("/").status == 200


# -- summaries -------------------------------------------------------------------------------------


@IN_SQLITE
def test_summaries_are_read_once(database, number, monkeypatch):
    known = KnownResults(database)
    first = known.summaries(number)
    first.clear()  # whoever asked may do with the list what they like
    monkeypatch.setattr(type(database), "summaries", None)
    assert [s.policy.text for s in known.summaries(number)] == [run("a").policy.text]


@IN_SQLITE
def test_a_task_that_is_too_large_is_read_each_time(database, number, monkeypatch):
    monkeypatch.setattr(remembering, "MOST_SUMMARIES", 1)
    known = KnownResults(database)
    assert len(known.summaries(number)) == len(known.summaries(number)) == 1
    assert known.summaries(1) == database.summaries(1) and len(known.summaries(1)) > 1


def test_threads_that_ask_at_once_read_once(database, number, monkeypatch):
    known = KnownResults(database)
    reads = []
    real, together = type(database).summaries, threading.Barrier(8)

    def counted(self, *values, **names):
        reads.append(values)
        return real(self, *values, **names)

    monkeypatch.setattr(type(database), "summaries", counted)

    def ask(_: int) -> int:
        together.wait()
        return len(known.summaries(number))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {1}
    assert len(reads) == 1
