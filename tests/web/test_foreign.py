"""Folders of runs that others write to: what one of them holds spoils nothing for the others."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.web import live
from lrbench_caffe.web.live import MOST_SHOWN, Place, news
from lrbench_caffe.web.pages import live as live_pages
from lrbench_caffe.web.settings import WebSettings
from tests.database.records import at
from tests.web.pages_data import write_studies, write_training
from tests.web.serving import Client, serving

RUN_FILES = ("run.json", "iterations.csv", "measurements.jsonl")
STUDY_FILES = ("study.json", "result.json", "range.json")
HUGE = 10**400  # no float holds it
SECRET = "70.707"


@pytest.fixture(autouse=True)
def looked_for_anew(monkeypatch):
    """What a test has done to the folder is seen at once, whatever a test before it looked at."""
    monkeypatch.setattr(live, "FRESH", -1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory, fresh):
    """A folder of runs, and the address of a server that shows it."""
    place = tmp_path_factory.mktemp("served")
    db = str(shutil.copy(fresh, place / "lr.sqlite"))
    folder = place / "runs"
    with serving(WebSettings(db=db, runs=(str(folder),), requests=10**6)) as url:
        yield folder, url


@pytest.fixture
def runs(served):
    """The folder with good studies; ``one`` and ``tune-one`` in it are there to be damaged."""
    folder, _ = served
    shutil.rmtree(folder, ignore_errors=True)
    write_studies(folder)
    write_training(folder, "one", "FIX(k0=0.5)", [(10, 50.0)])
    os.rename(folder / "trainings" / "one", folder / "one")
    (folder / "trainings").rmdir()
    study = {"plan": {"solver": "s", "max_iter": 200, "goal": "accuracy", "seed": 1}}
    (folder / "tune-one").mkdir()
    (folder / "tune-one" / "study.json").write_text(json.dumps(study))
    write_training(folder / "tune-one", "one", "FIX(k0=0.5)", [(10, 50.0)])
    return folder


@pytest.fixture
def site(served, runs):
    return Client(served[1])


def within(seconds: float, work) -> object:
    """What ``work`` gives; it fails where it hangs."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "no answer: something hangs or failed"
    return found[0]


def check_pages(site: Client) -> dict[str, str]:
    """Check that every page of the folder is answered; gives the texts of the lists."""
    texts = {}
    for path in ("/live", "/live.json", "/tunings"):
        answer = within(60, lambda path=path: site.get(path))
        assert answer.status == 200, path
        texts[path] = answer.text
        assert "tune-digits" in answer.text
    for run in json.loads(texts["/live.json"]):
        if "one" not in run["name"]:
            continue
        for path in (f"/live/{run['key']}", f"/live/{run['key']}/events"):
            assert within(60, lambda path=path: site.get(path)).status == 200, path
    for part in texts["/tunings"].split("/tunings/")[1:]:
        if ">tune-one" not in part:
            continue
        path = f"/tunings/{part.split(chr(34))[0]}"
        assert within(60, lambda path=path: site.get(path)).status == 200, path
    return texts


def put(path: Path, kind: str, elsewhere: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere)


def elsewhere_of(path: Path, folder: Path) -> Path:
    """A file elsewhere that would be shown if a link to it were followed."""
    found = folder / f"secret-{path.name}"
    if path.name == "run.json":
        record = json.loads(path.read_text())
        found.write_text(json.dumps({**record, "policy": f"FIX(k0={SECRET})"}))
    elif path.name == "measurements.jsonl":
        row = json.loads(path.read_text())
        found.write_text(json.dumps({**row, "top1": float(SECRET), "test_loss": 1.0}) + "\n")
    elif path.name == "iterations.csv":
        found.write_text(f"iteration,lr,loss\n0,0.1,{SECRET}\n")
    elif path.name == "study.json":
        found.write_text(json.dumps({"plan": {"solver": SECRET}}))
    elif path.name == "range.json":
        found.write_text(json.dumps({"form": SECRET, "low": 1, "high": 2, "best": 1}))
    else:
        found.write_text(json.dumps({"failure": SECRET}))
    return found


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize(
    "name",
    [
        *(f"one/{name}" for name in RUN_FILES),
        *(f"tune-one/{name}" for name in STUDY_FILES),
        *(f"tune-one/trainings/one/{name}" for name in RUN_FILES),
    ],
)
def test_a_pipe_or_link_in_the_place_of_a_file_is_not_followed(site, runs, tmp_path, name, kind):
    put(runs / name, kind, elsewhere_of(runs / name, tmp_path))
    texts = check_pages(site)
    assert not any(SECRET in text for text in texts.values())
    key = next((r["key"] for r in json.loads(texts["/live.json"]) if r["name"] == "one"), None)
    assert key is None or SECRET not in site.get(f"/live/{key}/events").text


def test_a_link_to_a_training_elsewhere_is_not_followed(site, runs, tmp_path):
    write_training(tmp_path / "other", "x", f"FIX(k0={SECRET})", [(10, 50.0)])
    (runs / "tune-one/trainings/linked").symlink_to(tmp_path / "other/trainings/x")
    key = next(p for p in check_pages(site)["/tunings"].split("/tunings/")[1:] if ">tune-one<" in p)
    assert SECRET not in site.get(f"/tunings/{key.split(chr(34))[0]}").text


def test_a_pipe_that_comes_while_a_run_is_followed_ends_nothing(tmp_path):
    write_training(tmp_path, "x", "FIX(k0=1)", [(10, 50.0)])
    run = tmp_path / "trainings/x"
    place = news(run, Place()).place
    put(run / "measurements.jsonl", "pipe", run)
    found = within(60, lambda: news(run, place))
    assert found.again and not found.tests


def changed_text(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def changed_plan(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text())
    changed_text(path, plan={**content["plan"], **fields})


DAMAGE = {
    "a test that is a list": lambda runs: (runs / "one/measurements.jsonl").write_text("[1,2]\n"),
    "a deep test": lambda runs: (runs / "one/measurements.jsonl").write_text("[" * 10**5 + "\n"),
    "a huge test": lambda runs: (runs / "one/measurements.jsonl").write_text(
        (runs / "one/measurements.jsonl").read_text().replace("50.0", str(HUGE))
    ),
    "a huge test of a study": lambda runs: (
        runs / "tune-one/trainings/one/measurements.jsonl"
    ).write_text((runs / "one/measurements.jsonl").read_text().replace("50.0", str(HUGE))),
    "a test at a huge iteration": lambda runs: changed_text(
        runs / "one/measurements.jsonl", iteration=HUGE
    ),
    "half a character": lambda runs: changed_text(
        runs / "one/run.json", policy="\ud800", task="\udfff", reason="\ud800"
    ),
    "half a character in a training": lambda runs: changed_text(
        runs / "tune-one/trainings/one/run.json", policy="\ud800", status="failed", reason="\ud800"
    ),
    "a name that is no text": lambda runs: (runs / "one").rename(
        os.fsdecode(os.fsencode(runs) + b"/one\xff")
    ),
    "a study's name that is no text": lambda runs: (runs / "tune-one").rename(
        os.fsdecode(os.fsencode(runs) + b"/tune-one\xff")
    ),
    "half a character in a plan": lambda runs: changed_plan(
        runs / "tune-one/study.json", goal="\ud800", solver="\ud800", functions=["\ud800"]
    ),
    "half a character in what was known": lambda runs: changed_text(
        runs / "tune-one/study.json", experience={"policies": [["FIX(k0=0.5)", "\ud800"]]}
    ),
    "a huge budget": lambda runs: changed_plan(runs / "tune-one/study.json", budget=HUGE),
    "a huge chance": lambda runs: changed_plan(runs / "tune-one/study.json", chance=HUGE),
    "huge counts": lambda runs: changed_plan(
        runs / "tune-one/study.json", max_iter=HUGE, test_interval=HUGE, seed=HUGE
    ),
    "a deep goal": lambda runs: (runs / "tune-one/study.json").write_text(
        '{"plan": {"goal": ' + "[" * 500 + "]" * 500 + "}}"
    ),
    "a study that is a list": lambda runs: (runs / "tune-one/study.json").write_text("[1]"),
    "a huge best LR": lambda runs: (runs / "tune-one/range.json").write_text(
        json.dumps({"form": "ladder", "low": 0.1, "high": 1, "best": HUGE})
    ),
    "a huge range": lambda runs: (runs / "tune-one/result.json").write_text(
        json.dumps({"range": {"low": 1, "high": HUGE}, "best": HUGE, "budget": HUGE})
    ),
    "half a character in a verdict": lambda runs: (runs / "tune-one/result.json").write_text(
        json.dumps({"verdict": {"text": "\ud800"}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_in_one_folder_spoils_no_page(site, runs, damage):
    DAMAGE[damage](runs)
    check_pages(site)


def test_of_a_damaged_run_and_study_the_rest_is_shown(site, runs):
    DAMAGE["a test that is a list"](runs)
    DAMAGE["half a character in a plan"](runs)
    texts = check_pages(site)
    (one,) = [run for run in json.loads(texts["/live.json"]) if run["name"] == "one"]
    assert one["policy"] == "FIX(k0=0.5)" and one["top1"] is None and one["iteration"] == 10
    assert r"\ud800" in texts["/tunings"]


def test_the_list_has_the_last_test_of_the_first_test_net(site, runs):
    tests = [at(10, 83.2), at(10, 93.8, net=1), at(20, 82.2), at(20, 88.4, net=1)]
    rows = [json.dumps(dataclasses.asdict(m)) + "\n" for m in tests]
    (runs / "one/measurements.jsonl").write_text("".join(rows))
    (one,) = [run for run in site.get("/live.json").json if run["name"] == "one"]
    assert one["top1"] == 82.2


def test_a_page_of_a_net_that_does_not_classify_has_its_last_loss(site, runs):
    """The page before the first event, and the events."""
    tests = [at(10, None, test_loss=1.5), at(20, None, test_loss=1.0393061876)]
    rows = [json.dumps(dataclasses.asdict(m)) + "\n" for m in tests]
    (runs / "one/measurements.jsonl").write_text("".join(rows))
    (one,) = [run for run in site.get("/live.json").json if run["name"] == "one"]
    path = f"/live/{one['key']}"
    assert 'the last test: <span id="last">loss 1.0393</span>' in site.get(path).text
    first = json.loads(site.get(f"{path}/events").text.partition("data: ")[2].partition("\n")[0])
    assert (first["result"], first["iteration"]) == ("loss 1.0393", 10)


def test_what_is_new_of_a_long_run_says_how_far_it_is_and_whether_there_is_more(tmp_path):
    write_training(tmp_path, "x", "FIX(k0=1)", [(1, 50.0)])
    run = tmp_path / "trainings/x"
    rows = "".join(f"{i},0.01,{1.5:.12f}\n" for i in range(70_000))
    (run / "iterations.csv").write_text("iteration,lr,loss\n" + rows + "70000,0.0")
    place, done, more = Place(), [], True
    while more:  # it ends, though the last line is never complete
        found = news(run, place)
        assert len(found.losses) <= 1000
        done.append(found.iteration)
        place, more = found.place, found.more
    # A megabyte, and a rest; then nothing. The last row of a thinned event is a mean.
    assert len(done) == 3 and 0 < done[0] < done[1] == 70_000 and done[2] is None


# -- trainings that ended without a word -----------------------------------------------------------


def test_a_killed_training_is_interrupted_and_its_stream_ends(site, runs):
    changed_text(runs / "one/run.json", status="running")
    training = RunDirectory(runs / "one")
    training.lock()
    first = site.get("/live.json").json[0]
    assert (first["name"], first["status"]) == ("one", "running")
    assert '<span id="running">1</span>' in site.get("/live").text
    followed: list[str] = []
    stream = threading.Thread(
        target=lambda: followed.append(site.get(f"/live/{first['key']}/events").text), daemon=True
    )
    stream.start()
    stream.join(2.5)
    assert stream.is_alive()  # it is still trained
    training.release()  # as the system does for a process that is killed
    stream.join(60)
    assert followed and followed[0].endswith('event: end\ndata: "interrupted"\n\n')
    (one,) = [run for run in site.get("/live.json").json if run["name"] == "one"]
    assert one["status"] == "interrupted"
    assert '<span id="running">0</span>' in site.get("/live").text


def test_a_killed_training_is_not_first(site, runs):
    changed_text(runs / "one/run.json", status="running")
    for name in ("run.json", "iterations.csv", "measurements.jsonl"):
        os.utime(runs / "one" / name, (1, 1))
    assert site.get("/live.json").json[-1]["name"] == "one"


def test_of_many_runs_the_newest_are_listed(tmp_path, new_url):
    for n in range(MOST_SHOWN + 7):
        write_training(tmp_path / "r", f"x{n}", "FIX(k0=1)", [(1, 50.0)])
        for name in ("run.json", "iterations.csv", "measurements.jsonl"):
            os.utime(tmp_path / "r/trainings" / f"x{n}" / name, (n + 1, n + 1))
    oldest = RunDirectory(tmp_path / "r/trainings/x0")
    oldest.lock()
    settings = WebSettings(db=new_url("sqlite"), runs=(str(tmp_path / "r"),))
    with serving(settings) as url:
        listed = [run["name"] for run in Client(url).get("/live.json").json]
        text = Client(url).get("/live").text
    oldest.release()
    newest = [f"trainings/x{n}" for n in range(MOST_SHOWN + 6, 6, -1)]
    assert listed == ["trainings/x0", *newest]
    assert text.count("<tr data-key") == MOST_SHOWN + 1
    assert f"{MOST_SHOWN + 7} in all; the 6 that" in text
    assert len(text) < 150_000


@pytest.mark.ci
@pytest.mark.parametrize("how", ["header", "cookie"])
def test_a_stream_ends_soon_after_its_token_is_revoked(new_url, runs, monkeypatch, how):
    monkeypatch.setattr(live_pages, "ASK", 0.5)
    db = new_url("sqlite")
    training = RunDirectory(runs / "one")
    training.lock()
    with Database.open(db) as database:
        secret = Platform(database).add_token("ada", "read")
        settings = WebSettings(db=db, runs=(str(runs),), private=True, requests=10**6)
        with serving(settings) as url:
            visitor = Client(url, secret if how == "header" else None)
            if how == "cookie":
                visitor.sign_in(secret)
            key = visitor.get("/live.json").json[0]["key"]
            followed: list[str] = []
            stream = threading.Thread(
                target=lambda: followed.append(visitor.get(f"/live/{key}/events").text), daemon=True
            )
            stream.start()
            stream.join(3)
            assert stream.is_alive()  # the token is valid
            Platform(database).revoke("ada")
            stream.join(60)
            assert followed and "event: end" not in followed[0]  # the training goes on
            assert visitor.get(f"/live/{key}/events").status == 401
    training.release()
