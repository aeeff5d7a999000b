"""Recommendations of the server: for a task, and for a solver that is uploaded or pasted."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.prototxt.task import open_task, solver_settings
from lrbench_caffe.records import Contribution, RunRecord
from lrbench_caffe.web import reading
from tests.caffe.conftest import caffe_program, digits  # noqa: F401
from tests.caffe.harness import ROOT, Workspace
from tests.database.records import DATASET, at, policy, run
from tests.web.serving import Answer, Client

ADA = Contribution("b1", "ada", None, None, 5000.0)
BOB = Contribution("b2", 'bob <img src="x">', None, None, 6000.0)
SOLVER = (ROOT / "solvers/lenet_digits_solver.prototxt").read_text(encoding="utf-8")
NET = (ROOT / "prototxt/lenet_digits_train_test.prototxt").read_text(encoding="utf-8")
FORM = {
    "name": "digits",
    "channels": 1,
    "height": 8,
    "width": 8,
    "classes": 10,
    "train_samples": 1297,
}
ASK = "/api/v1/recommendations"

# What the database is, other tests look at: these start a Caffe each.
pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def ended(
    uid: str, text: str, top1: float, sent: Contribution | None = None, **others
) -> RunRecord:
    return run(uid, policy=policy(text), measurements=[at(300, top1)], contribution=sent, **others)


@pytest.fixture
def shared(database: Database) -> int:
    """A task with own runs, ada's and bob's; its number."""
    database.put_many(
        [
            ended("own", "FIX(k0=0.01)", 90.0),
            ended("ada1", "FIX(k0=0.01)", 92.0, ADA, seed=2),
            ended("ada2", "FIX(k0=0.1)", 88.0, ADA),
            ended("bob1", "FIX(k0=0.001)", 95.0, BOB),
        ]
    )
    (number,) = (t.id for t in database.tasks() if t.dataset == DATASET)
    return number


def ask(client: Client, **query: object) -> Answer:
    return client.post(ASK, json.dumps(query).encode(), Content_Type="application/json")


def send(client: Client, files: dict[str, bytes] | None = None, **fields: str) -> Answer:
    """Send the form of the page, as a browser does."""
    key = next((c.value for c in client.cookies if c.name == "lrbench_form"), "")
    edge = "edge-of-a-part"
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"form_key": key, **fields}.items()
    ]
    for name, content in {"solver_file": b"", "net_file": b"", **(files or {})}.items():
        named = f"{name}.prototxt" if content else ""  # what a browser sends where none is chosen
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="{named}"\r\n'
        kind = "Content-Type: application/octet-stream\r\n\r\n"
        parts.append((head + kind).encode() + content + b"\r\n")
    body = b"".join([*parts, f"--{edge}--\r\n".encode()])
    return client.post("/recommend", body, Content_Type=f"multipart/form-data; boundary={edge}")


# -- a task of the database ------------------------------------------------------------------------


def test_for_a_task_the_settings_are_those_of_its_best_training(client, shared):
    told = ask(client, task=shared, top=9).json
    assert (told["task"], told["start"], told["max_iter"]) == ("digits / LeNet", "scratch", 300)
    assert told["solver"] == {
        "type": "SGD", "batch": 64, "iter_size": 1, "base_lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005,
    }  # fmt: skip
    here = {p["policy"]: p for p in told["proposals"] if p["same_task"]}
    assert here.keys() == {"FIX(k0=0.001)", "FIX(k0=0.01)", "FIX(k0=0.1)"}
    pooled = here["FIX(k0=0.01)"]
    assert pooled["contributors"] == {"ada": 1}
    assert pooled["expected"] == {"mean": 91.0, "sd": 1.0}
    assert pooled["command"] == "lrbench-caffe train solver.prototxt --lr 'FIX(k0=0.01)'"
    longer = ask(client, task=shared, top=1, max_iter=600).json
    assert longer["max_iter"] == 600
    assert longer["proposals"][0]["command"].startswith(
        "lrbench-caffe train solver.prototxt --max-iter 600 --lr "
    )


def test_it_is_limited_to_contributors(client, shared):
    told = ask(client, task=shared, contributors=["ada"]).json
    assert {p["policy"]: p["expected"]["mean"] for p in told["proposals"]} == {
        "FIX(k0=0.01)": 92.0,
        "FIX(k0=0.1)": 88.0,
    }
    assert all(p["contributors"] == {"ada": 1} for p in told["proposals"])
    page = client.get(f"/recommend?task={shared}&contributors=own,ada").text
    assert "(measured, 2 runs, of these 1 from ada, the newest runs/ada1)" in page
    assert "FIX(k0=0.001)" not in page
    answer = ask(client, task=shared, contributors=["adda"])
    assert (answer.status, answer.json["error"][:54]) == (
        400,
        "contributors: 'adda' has contributed nothing; did you ",
    )


def test_the_page_says_all_of_it_and_escapes_names(client, shared):
    answer = client.get(f"/recommend?task={shared}&max_iter=&functions=fix&contributors=&by=&top=3")
    assert answer.status == 200
    assert "<title>Policies for digits / LeNet - LR database</title>" in answer.text
    assert "from bob &lt;img src=&#34;x&#34;&gt;" in answer.text and "<img" not in answer.text
    assert "In the database: 3 policies on this task." in answer.text
    assert (
        '<code class="copied">lrbench-caffe train solver.prototxt --lr &#39;FIX(k0=0.01)&#39;</code>'
        in answer.text
    )
    assert "/playground?policy=FIX%28k0%3D0.01%29&amp;max_iter=300" in answer.text
    before_charts = answer.text.partition('<script type="application/json">')[0]
    assert (
        len(answer.body) < 150_000
        and 'name="functions" maxlength="1000" value="fix"' in answer.text
    )
    assert "Schedules" in before_charts


def test_what_cannot_be_is_refused_in_a_line(client, shared, database):
    other = dataclasses.replace(DATASET, name="n", digest="n")
    database.put(ended("begun", "FIX(k0=1)", 1.0, status="running", dataset=other))
    (new,) = (t.id for t in database.tasks() if t.dataset.name == "n")
    for query, status, words in (
        ({}, 400, "solver: is missing; allowed: a solver's text, or the number of a task"),
        ({"task": 10**6}, 404, "there is no task 1000000"),
        ({"task": new}, 404, f"task {new}: no training of it has ended"),
        ({"task": shared, "solver": "x"}, 400, f"task: {shared}; allowed: without solver"),
        ({"task": shared, "functions": ["SINN"]}, 400, "unknown LR function 'SINN'"),
        ({"task": shared, "by": "f1"}, 400, "by: unknown output 'f1'; known: top1, test_loss"),
        ({"task": shared, "top": 0}, 422, "top: "),
        ({"task": shared, "topp": 1}, 422, "topp: "),
        ({"solver": SOLVER, "net": NET}, 400, "data, form: none; allowed: one of them"),
        ({"solver": SOLVER, "net": NET, "data": shared, "form": FORM}, 400, "data, form: both"),
        ({"solver": SOLVER, "net": NET, "form": {**FORM, "height": 0}}, 422, "form.height: "),
    ):
        answer = ask(client, **query)
        assert answer.status == status and answer.json["error"].startswith(words), query
    assert client.get("/recommend?task=1000000").status == 404
    assert client.get("/recommend?task=x").status == 422
    assert client.get("/recommend").status == 200


# -- a solver --------------------------------------------------------------------------------------


def test_an_uploaded_solver_gets_what_the_command_says(
    client, database, url, digits, caffe_program, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    """The command opens the solver with Caffe, the server only reads the texts."""
    (tmp_path / "data").symlink_to(digits)
    for name in ("prototxt", "solvers"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    solver, task = open_task(Path("solvers/lenet_digits_solver.prototxt"))
    parts = {"framework": task.framework, "dataset": task.dataset, "network": task.network}
    others = {**parts, "solver": solver_settings(solver), "epoch": solver.epoch, "max_iter": 2000}
    database.put_many(
        [
            ended("a", "FIX(k0=0.01)", 97.0, ADA, **others),
            ended("b", "FIX(k0=0.1)", 95.0, **others),
            ended("c", "SIN2(k0=0.001, k1=0.06, l=500)", 98.0, BOB, **others),
        ]
    )
    (number,) = (t.id for t in database.tasks() if t.dataset == task.dataset)
    for flags, wishes in (
        ([], {}),
        (
            ["--contributors", "ada,own", "--functions", "fix"],
            {"contributors": ["ada", "own"], "functions": ["fix"]},
        ),
        (["--max-iter", "3000", "--top", "1"], {"max_iter": 3000, "top": 1}),
    ):  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "lrbench_caffe.recommend",
            "solvers/lenet_digits_solver.prototxt",
        ]
        done = Workspace(tmp_path, caffe_program).command([*command, "--json", "--db", url, *flags])
        expected = json.loads(done.succeeded().out)
        answer = ask(client, solver=SOLVER, net=NET, data=number, **wishes)
        told = answer.json
        for proposal in told["proposals"]:
            del proposal["command"]
        assert {name: told[name] for name in expected} == expected
        assert len(expected["proposals"]) >= 1
    assert told["described"] == {**dataclasses.asdict(task), "id": None}


@pytest.mark.ci
def test_the_form_takes_files_and_pasted_texts(client, shared):
    client.get("/recommend")
    described = {name: str(value) for name, value in FORM.items()}
    by_file = send(client, {"solver_file": SOLVER.encode()}, net=NET, data="", **described)
    assert by_file.status == 200
    assert "<title>Policies for digits / LeNet_digits - LR database</title>" in by_file.text
    assert "131080 parameters, depth 4" in by_file.text
    pasted = send(client, None, solver=SOLVER, net=NET, data=str(shared), max_iter="", top="1")
    assert pasted.status == 200 and pasted.text.count("Train with it") == 1
    # What was filled in stands there again, with what is wrong.
    wrong = send(client, None, solver=SOLVER, net="layer { <b>", data=str(shared), functions="sin2")
    assert wrong.status == 400
    assert (
        'role="alert" class="problem">prototxt/lenet_digits_train_test.prototxt:1: ' in wrong.text
    )
    assert "layer { &lt;b&gt;</textarea>" in wrong.text and 'value="sin2"' in wrong.text
    missing = send(client, None, solver=SOLVER, net=NET)
    assert (
        missing.status == 400
        and "data: is missing; allowed: a data set of the list" in missing.text
    )


def test_the_form_must_be_from_the_page(client, shared):
    answer = send(client, None, solver=SOLVER, net=NET, data=str(shared))
    assert answer.status == 403 and "the form is not from this page" in answer.text
    # The API changes nothing, so that it needs none; a private server asks for a token.
    assert ask(client, task=shared).status == 200


def test_a_private_and_a_read_only_server(serve: Callable[..., str], shared, token):
    private = serve(private=True)
    assert ask(Client(private), task=shared).status == 401
    assert ask(Client(private, token("eve", "read")), task=shared).status == 200
    assert ask(Client(serve(read_only=True)), task=shared).status == 200


def test_without_a_caffe_the_description_that_comes_with_the_project_is_used(
    client, shared, monkeypatch
):
    monkeypatch.setenv("LRBENCH_CAFFE_PYTHON", "/nowhere/python")
    reading.local_caffe.cache_clear()
    try:
        told = ask(client, solver=SOLVER, net=NET, form=FORM)
        assert told.status == 200 and told.json["described"]["network"]["parameters"] == 131_080
        old = ask(client, solver=SOLVER, net="layers { type: RELU }", form=FORM)
        assert old.status == 400 and "this Caffe cannot be asked to upgrade it" in old.json["error"]
    finally:
        reading.local_caffe.cache_clear()


OLD = """
name: "Old"
layers { name: "d" type: DATA top: "data" top: "label"
  data_param { source: "/nowhere" batch_size: 10 backend: LMDB } }
layers { name: "i" type: INNER_PRODUCT bottom: "data" top: "i" inner_product_param { num_output: 10 } }
layers { name: "l" type: SOFTMAX_LOSS bottom: "i" bottom: "label" }
"""  # fmt: skip


@pytest.mark.ci
def test_a_net_of_2014_is_upgraded_by_caffe_where_there_is_one(client, shared, caffe_program):  # noqa: F811
    told = ask(client, solver='net: "n" base_lr: 0.01 max_iter: 9', net=OLD, form=FORM)
    assert told.status == 200, told.text
    assert told.json["described"]["network"]["parameters"] == 10 * 64 + 10
    assert any("layers of 2014" in note for note in told.json["notes"])
    # An error has the name that the solver has for the net, and none of this machine's.
    wrong = ask(
        client, solver='net: "n" base_lr: 0.01 max_iter: 9', net="layer { a: 4_0 }", form=FORM
    )
    assert wrong.status == 400 and wrong.json["error"].startswith("n:1: ")
    assert "/tmp" not in wrong.json["error"]


# -- bounds ----------------------------------------------------------------------------------------


def test_texts_that_are_too_large_are_refused(serve, shared):
    client = Client(serve(solver_mib=1))
    large = NET + " " * 2**20
    answer = ask(client, solver=SOLVER, net=large, form=FORM)
    assert (answer.status, answer.json["error"]) == (413, "net: more than 1 MiB")
    client.get("/recommend")
    assert send(client, {"net_file": large.encode()}, solver=SOLVER).status == 413
    pasted = send(client, {}, solver=SOLVER, net=large)
    assert pasted.status == 413
    assert "net: more than 1 MiB" in pasted.text


def test_a_pasted_text_may_be_as_large_as_an_uploaded_one(serve, shared):
    client = Client(serve(solver_mib=2))
    client.get("/recommend")
    net = NET + "#" * (3 * 2**19)  # 1.5 MiB, as a comment
    values = {name: str(value) for name, value in FORM.items()}
    pasted = send(client, {}, solver=SOLVER, net=net, **values)
    assert pasted.status == 200
    uploaded = send(client, {"net_file": net.encode()}, solver=SOLVER, **values)
    assert uploaded.status == 200
    assert "Policies for " in pasted.text and "Policies for " in uploaded.text


def test_other_forms_are_small(client):
    client.get("/sign-in")
    assert client.submit("/sign-in", secret="x" * 300_000).status == 413


@pytest.mark.parametrize("path", ["/recommend", ASK, "/sign-in"])
def test_a_body_that_never_ends(serve, path):
    place = urlsplit(serve(solver_mib=1))
    with socket.create_connection((place.hostname, place.port)) as connection:
        kind = "multipart/form-data; boundary=x" if path != ASK else "application/json"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        begun = b'--x\r\nContent-Disposition: form-data; name="net_file"; filename="n"\r\n\r\n'
        piece = b"x" * 2**20
        try:
            connection.sendall(b"%x\r\n%s\r\n" % (len(begun), begun))
            for _ in range(100):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:  # it has answered and closed
            pass
        connection.settimeout(30)
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("layer {" * 100_000, "'layer' in LayerParameter; allowed: in a net"),
        ("layer {}" * 100_000, "layer is given 100000 times; allowed: 10000"),
        ('layer { type: "' + "x" * 900_000 + '" }', "unknown layer type 'xxx"),
        (f"layer {{ reshape_param {{ shape {{ dim: {'9' * 900_000} }} }} }}", ":1: "),
        ("\ud800\x00\ufffe", ":1: "),
    ],
)
def test_a_hostile_net_gets_one_line(client, shared, net, words, monkeypatch):
    monkeypatch.setattr(reading, "DEADLINE", 120.0)  # on a busy machine its CPU time takes long
    answer = ask(client, solver=SOLVER, net=net, form=FORM)
    assert answer.status == 400 and words in answer.json["error"]
    assert len(answer.json["error"]) <= reading.LONGEST and "\n" not in answer.json["error"]


@pytest.mark.ci
def test_what_takes_too_long_is_ended(client, shared):
    """Each of 4,000 layers is asked for its input's channels, through 4,000 layers before it."""
    data = 'layer { type: "Data" top: "a" top: "l" data_param { source: "s" batch_size: 1 } }'
    chain = 'layer { type: "ReLU" bottom: "a" top: "a" }' * 4000
    readers = "".join(
        f'layer {{ type: "Accuracy" bottom: "a" bottom: "l" top: "q{i}" }}' for i in range(4000)
    )
    answer = ask(client, solver=SOLVER, net=data + chain + readers, form=FORM)
    assert (
        answer.status == 400 and "take too long or too much memory to read" in answer.json["error"]
    )


def test_only_some_are_read_at_once(client, shared, monkeypatch):
    monkeypatch.setattr(reading, "WAIT", 0.05)
    for _ in range(2):
        assert reading.AT_ONCE.acquire(timeout=30)
    try:
        answer = ask(client, solver=SOLVER, net=NET, form=FORM)
        assert answer.status == 503 and answer.headers["Retry-After"] == "1"
    finally:
        for _ in range(2):
            reading.AT_ONCE.release()
    assert ask(client, solver=SOLVER, net=NET, form=FORM).status == 200
