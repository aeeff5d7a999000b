"""The API: what it answers, by hand, and that nothing that it is asked makes it fail."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from lrbench_caffe.database import exchange
from tests.database.records import DATASET, at, policy, run


@pytest.fixture
def filled(database):
    database.put(run("a", seed=1))
    database.put(run("b", seed=2, measurements=[at(100, 91.0), at(300, 97.0)]))
    database.put(run("c", policy=policy("FIX(k0=0.01)"), measurements=[at(300, 90.0)]))
    return next(t.id for t in database.tasks() if t.dataset == DATASET)


def test_tasks_are_found_by_words(client, filled):
    found = client.get("/api/v1/tasks?q=digits%20caffe").json
    assert [(t["id"], t["title"], t["runs"]) for t in found] == [(filled, "digits / LeNet", 3)]
    assert client.get("/api/v1/tasks?q=nothing").json == []
    assert client.get(f"/api/v1/tasks/{filled}").json == found[0]
    assert client.get("/api/v1/tasks/999999").status == 404


def test_a_ranking_is_that_of_the_command(client, filled):
    answer = client.get(f"/api/v1/tasks/{filled}/ranking?by=top1").json
    first, second = answer["policies"]
    assert (first["policy"], first["place"], first["trainings"]) == (
        "SIN2(k0=0.01, k1=0.06, l=2000)", 1, 2,
    )  # fmt: skip
    assert (first["top1"], first["top1_sd"]) == (96.0, 1.0)
    assert (second["policy"], second["top1"]) == ("FIX(k0=0.01)", 90.0)
    only = client.get(f"/api/v1/tasks/{filled}/ranking?functions=fix").json["policies"]
    assert [row["policy"] for row in only] == ["FIX(k0=0.01)"]
    wrong = client.get(f"/api/v1/tasks/{filled}/ranking?by=speed")
    assert (wrong.status, "speed" in wrong.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("address", "begins", "ends"),
    [
        ("tasks?query=digits", "query: no parameter; allowed: q", ""),
        ("tasks/{0}/ranking?functon=FIX", "functon: no parameter; ", "; did you mean 'functions'?"),
        ("tasks/{0}?q=", "q: no parameter; allowed: none", ""),
        ("runs?task={0}&limits=2", "limits: no parameter; allowed: after, ", "; did you mean 'limit'?"),
        ("runs/a?limit=2", "limit: no parameter; allowed: none", ""),
        ("export?tasks={0}", "tasks: no parameter; allowed: after, ", "; did you mean 'task'?"),
    ],
)  # fmt: skip
def test_a_parameter_that_there_is_not_is_refused(client, filled, address, begins, ends):
    """Ignored, it would be a filter that filters nothing."""
    answer = client.get("/api/v1/" + address.format(filled))
    told = answer.json["error"]
    assert answer.status == 422 and told.startswith(begins) and told.endswith(ends)


def test_runs_come_page_by_page(client, filled):
    seen, after = [], ""
    while True:
        page = client.get(f"/api/v1/runs?task={filled}&limit=2{after}").json
        seen += [r["uid"] for r in page["runs"]]
        if page["next"] is None:
            break
        after = f"&after={quote(page['next'])}"
    assert seen == ["c", "b", "a"]
    assert client.get("/api/v1/runs/b").json["measurements"][1]["top1"] == 97.0
    assert client.get("/api/v1/runs/nobody").status == 404


def test_an_export_is_what_import_reads(client, filled, database):
    lines, after = b"", ""
    while body := client.get(f"/api/v1/export?task={filled}&limit=2{after}").body:
        lines += body
        after = f"&after={json.loads(body.splitlines()[-1])['uid']}"
    records = [exchange.from_line(line) for line in lines.splitlines()]
    assert records == [database.get(uid) for uid in ("a", "b", "c")]


def test_a_schedule_has_the_lr_of_each_iteration(client):
    answer = client.get("/api/v1/schedule?max_iter=5&policy=" + quote("STEP(k0=1, gamma=0.5, l=2)"))
    assert answer.json == {
        "policy": "STEP(k0=1, gamma=0.5, l=2)",
        "function": "STEP",
        "params": {"k0": 1, "gamma": 0.5, "l": 2},
        "reacts": False,
        "iterations": [0, 1, 2, 3, 4],
        "lr": [1.0, 1.0, 0.5, 0.5, 0.25],
    }
    assert client.get("/api/v1/schedule?policy=NOSUCH").status == 400
    assert client.get("/api/v1/schedule").status == 422


def test_text_that_no_database_keeps_is_not_looked_for(client, filled):
    for path in ("/api/v1/runs?after=%00", "/api/v1/runs/%00", "/runs?function=%00", "/?q=%1b"):
        answer = client.get(path)
        assert (answer.status, "allowed: text without control" in answer.text) == (400, True), path


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_the_description_tells_how_requests_fail_and_which_need_a_token(client):
    described = client.get("/api/v1/openapi.json").json
    failure = {"$ref": "#/components/schemas/Failure"}
    operations = {
        (method, path): operation
        for path, methods in described["paths"].items()
        if path.startswith("/api/")
        for method, operation in methods.items()
    }
    for operation in operations.values():
        assert set(operation["responses"]) == {"200", "4XX", "5XX"}
        for status in ("4XX", "5XX"):
            content = operation["responses"][status]["content"]
            assert content["application/json"]["schema"] == failure
    properties = described["components"]["schemas"]["Failure"]["properties"]
    for path in ("/tasks/x", "/tasks/0", "/runs?limit=0", "/schedule?policy=x", "/nothing"):
        answer = client.get(f"/api/v1{path}")
        assert 400 <= answer.status < 500
        assert set(answer.json) == set(properties) == {"error"}, path
    with_token = {place for place, operation in operations.items() if "security" in operation}
    assert with_token == {place for place in operations if place[0] in ("delete", "put")} | {
        ("post", "/api/v1/runs")
    }
