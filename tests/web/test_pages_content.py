"""What the pages say, asked over HTTP."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import time
from html import unescape
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.paper.tables import paper_rows, paper_solver, paper_task
from lrbench_caffe.records import Start
from lrbench_caffe.tuning.trainings import RANGE_TEST, SEARCH
from lrbench_caffe.web.live import LiveFolders
from lrbench_caffe.web.study_charts import GREY, range_chart
from lrbench_caffe.web.tunings import StudyFolders
from tests.database.records import DATASET, at, policy, run
from tests.web.pages_data import HOSTILE, MARKUP, fill, write_studies, write_training
from tests.web.serving import Client

LIMIT = 150_000  # bytes of a page before the chart library


@pytest.fixture
def visitor(site) -> Client:
    return Client(site.url)


@pytest.fixture
def admin(site) -> Client:
    client = Client(site.url)
    client.sign_in(site.admin)
    return client


def text(page: str) -> str:
    """A page as it is read: without elements, scripts and runs of white space."""
    without = re.sub(r"<script.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(without)).strip()


class _Table(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def tables(page: str) -> list[list[dict[str, str]]]:
    """The tables of a page: a mapping from the heading for each row."""
    found = []
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        parser = _Table()
        parser.feed(table)
        heading, *rows = [[re.sub(r"\s+", " ", c).strip() for c in row] for row in parser.rows]
        found.append([dict(zip(heading, row)) for row in rows])
    return found


def task_of(visitor: Client, name: str) -> int:
    tasks = visitor.get("/api/v1/tasks").json
    return next(t["id"] for t in tasks if t["dataset"]["name"] == name)


def charts(page: str) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return {chart["name"]: chart for chart in map(json.loads, found)}


def links(page: str) -> list[str]:
    return [unescape(href) for href in re.findall(r'href="([^"]*)"', page)]


class _Harm(HTMLParser):
    """What a page of other people's names must not have: scripts of its own, handlers, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        runs = tag == "script" and "src" not in values and values.get("type") != "application/json"
        handlers = [name for name in values if name.startswith("on")]
        links = [value for value in values.values() if (value or "").startswith("javascript:")]
        if runs or handlers or links or tag == "img":
            self.found.append(self.get_starttag_text() or tag)


def harm(page: str) -> list[str]:
    """The elements of a page that could do something in the name of its reader."""
    parser = _Harm()
    parser.feed(page)
    return parser.found


def test_harm_is_seen():
    pages = (
        "<script>alert(1)</script>", "<p onclick=x>", "<img src=x>", '<a href="javascript:x">',
        '<b title="&#34;"onload=x>',
    )  # fmt: skip
    assert all(harm(page) for page in pages)
    assert (
        harm('<p title="&lt;img onload=x&#34; onclick=x">&lt;script><script src=a></script>') == []
    )


# -- all of them -----------------------------------------------------------------------------------


def test_tasks_are_chosen_by_data_set_network_and_framework(visitor):
    def titles(query: str) -> list[str]:
        return [row["task"] for found in tables(visitor.get(f"/?{query}").text) for row in found]

    assert len(titles("")) >= 5
    assert titles("network=LeNet_MNIST") == ["mnist / LeNet_MNIST"]
    assert titles("dataset=cifar10") == ["cifar10 / ResNet32_CIFAR10", "cifar10 / CNN3_CIFAR10"]
    assert titles("dataset=cifar10&q=cnn3&framework=Caffe") == ["cifar10 / CNN3_CIFAR10"]
    assert titles("dataset=cifar10&network=LeNet_MNIST") == titles("framework=Torch") == []
    page = visitor.get("/?dataset=cifar10").text
    assert "<option selected>cifar10</option>" in page and "<option>mnist</option>" in page


def test_a_fine_tuned_policy_is_the_best_of_a_task_only_where_none_is_from_scratch(serve, database):
    weights = Start("weights", "d" * 32, 3, 4, name="base.caffemodel")
    tuned = run("tuned", policy=policy("FIX(k0=0.5)"), start=weights, measurements=[at(100, 99.5)])
    database.put(tuned)
    visitor, page = Client(serve()), f"/?dataset={DATASET.name}"
    (row,) = tables(visitor.get(page).text)[0]
    words = "FIX(k0=0.5), from weights base.caffemodel, 3 of 4 layers filled"
    assert (row["best policy"], row["result"]) == (words, "99.50 %")
    database.put(run("own", policy=policy("FIX(k0=0.25)"), measurements=[at(100, 90.25)]))
    (row,) = tables(visitor.get(page).text)[0]
    assert (row["best policy"], row["result"]) == ("FIX(k0=0.25)", "90.25 %")


@pytest.mark.ci
def test_every_page_that_can_be_reached_is_whole_small_and_harmless(site, visitor):
    todo, seen, kinds = ["/", "/compare?uid=sin1&uid=h1"], set(), {}
    while todo:
        path = todo.pop()
        route = re.sub(r"[0-9a-f]{16}|\d+", "N", path.partition("?")[0])
        if path in seen or kinds.get(route, 0) >= 6:  # enough of a kind
            continue
        seen.add(path)
        kinds[route] = kinds.get(route, 0) + 1
        answer = visitor.get(path)
        assert answer.status in (200, 303), path
        assert len(answer.body) < LIMIT, path
        if not answer.headers.get("Content-Type", "").startswith("text/html"):
            continue
        assert harm(answer.text) == [], path
        title = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL)
        assert title and title[1].endswith(" - LR database"), path
        inside = (href.removeprefix(site.url) for href in links(answer.text))
        pages = (h.partition("#")[0] for h in inside if h.startswith("/"))
        todo += [h for h in pages if not re.search(r"/static/|\.(png|svg|csv|json)(\?|$)", h)]
    for kind in ("/tasks/N", "/runs", "/runs/hN", "/compare", "/tunings/N", "/paper/tableN"):
        assert kind in kinds, kind


def test_names_of_others_are_shown_as_they_are(visitor):
    for path in ("/runs/h1", "/runs/sent", f"/tasks/{task_of(visitor, HOSTILE.name)}", "/uploads"):
        page = visitor.get(path).text
        assert " ".join(MARKUP.split()) in text(page), path
        assert "49" not in re.findall(r"&amp;amp;(\d+)", page)


# -- tasks -----------------------------------------------------------------------------------------


def test_a_ranking_by_weights_is_an_address(visitor):
    task = task_of(visitor, "digits")
    # SIN2 has the higher Top-1 of the two, FIX fewer parameters.
    by_top1 = visitor.get(f"/tasks/{task}?w.top1=3&w.num_params=1&w.ac=")
    assert [r["policy"][:3] for r in tables(by_top1.text)[0]] == ["SIN", "FIX"]
    by_cost = visitor.get(f"/tasks/{task}?w.top1=1&w.num_params=3")
    first, second = tables(by_cost.text)[0]
    assert (first["policy"], first["score"]) == ("FIX(k0=0.01)", "0.7500")
    assert second["score"] == "0.2500"
    assert 'name="w.num_params" type="number" min="0" max="10" step="any" value="3"' in by_cost.text
    csv = visitor.get(f"/tasks/{task}/ranking.csv?w.top1=1&w.num_params=3").text.splitlines()
    assert csv[1].startswith("1,FIX(k0=0.01),FIX")


def test_filters_of_a_ranking_are_in_its_links(visitor):
    task = task_of(visitor, "digits")
    page = visitor.get(f"/tasks/{task}?functions=FIX&functions=STEP&by=top1&starts=scratch").text
    assert [r["policy"] for r in tables(page)[0]] == ["FIX(k0=0.01)"]
    download = next(href for href in links(page) if "ranking.csv" in href)
    assert parse_qs(urlsplit(download).query)["functions"] == ["FIX", "STEP"]
    weights = visitor.get(f"/tasks/{task}?starts=weights").text
    assert "From weights base.caffemodel, 3 of 4 layers filled" in text(weights)
    assert [r["policy"][:4] for r in tables(weights)[0]] == ["SIN2"]


def test_a_criterion_that_is_not_one_is_told_in_the_form(visitor):
    answer = visitor.get(f"/tasks/{task_of(visitor, 'digits')}?by=speed&functions=FIX")
    assert answer.status == 400
    assert "speed" in re.search(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)[1]
    assert 'value="FIX" checked' in answer.text


def test_a_ranking_says_what_is_not_in_it(visitor):
    task = task_of(visitor, "digits")
    page = visitor.get(f"/tasks/{task}").text
    assert "Not in the ranking: 1 unverified , 1 hidden runs." in text(page)
    # 91, 92 and 93 of the shown runs and 91 of the uploaded one: not 99.9, not 20.
    fix = next(r for r in tables(page)[0] if r["policy"] == "FIX(k0=0.01)")
    assert (fix["Top-1 (%)"], fix["trainings"]) == ("91.75 ± 0.83", "4")
    unverified = next(h for h in links(page) if "standing=unverified" in h)
    (row,) = tables(visitor.get(unverified.removeprefix(visitor.url)).text)[0]
    assert row["run"] == "too-good"
    assert row["doubt"].startswith("far above all others <script>")
    assert "1 policy only diverged or failed" in text(page)


def test_a_policy_leads_to_its_best_run_and_several_to_their_curves(visitor):
    task = task_of(visitor, "digits")
    page = visitor.get(f"/tasks/{task}?starts=scratch").text
    ids = re.findall(r'name="summary" value="(\d+)"', page)
    assert len(ids) == 2
    one = visitor.get(f"/tasks/{task}/curves?summary={ids[0]}")
    assert (one.status, one.headers["Location"]) == (303, f"{visitor.url}/runs/sin3")
    both = visitor.get(f"/tasks/{task}/curves?summary={ids[0]}&summary={ids[1]}")
    assert parse_qs(urlsplit(both.headers["Location"]).query)["uid"] == ["sin3", "fix3"]
    assert visitor.get(f"/tasks/{task}/curves").status == 404


# -- runs ------------------------------------------------------------------------------------------


def test_a_list_of_runs_has_the_best_of_each(visitor):
    rows = tables(visitor.get("/runs?policy=FIX%28k0%3D0.01%29&source=measured&status=").text)[0]
    found = {r["run"]: (r["best Top-1 (%)"], r["best loss"], r["contributor"]) for r in rows}
    assert found == {
        "fix1": ("91.00", "0.3000", "-"),
        "fix2": ("92.00", "0.3000", "-"),
        "fix3": ("93.00", "0.3000", "-"),
        "sent": ("91.00", "0.3000", "ada"),
    }
    (lost,) = tables(visitor.get("/runs?status=diverged").text)[0]
    assert (lost["run"], lost["best Top-1 (%)"], lost["best loss"]) == ("lost", "-", "-")


def test_pages_of_runs_have_each_once(visitor):
    path, seen = "/runs?limit=2&source=measured", []
    while path:
        page = visitor.get(path).text
        seen += [row["run"] for table in tables(page) for row in table]
        following = re.search(r'rel="next" href="([^"]*)"', page)
        path = following and f"/runs{unescape(following[1])}"
    assert sorted(seen) == sorted(
        ["sin1", "sin2", "sin3", "fix1", "fix2", "fix3", "tuned", "lost", "h1", "sent"]
    )


def test_a_run_says_what_it_began_with_and_from_whom_it_is(visitor):
    tuned = text(visitor.get("/runs/tuned").text)
    assert "Fine-tuned from base.caffemodel: 3 of 4 layers with weights were filled" in tuned
    sent = visitor.get("/runs/sent").text
    assert "Uploaded by ada" in text(sent)
    assert f"{visitor.url}/uploads?contributor=ada#b1" in links(sent)
    assert 'id="b1"' in visitor.get("/uploads?contributor=ada").text
    assert "https://example.org/?a=1&b=<2>" in links(sent)
    task = task_of(visitor, "digits")
    assert f"{visitor.url}/tasks/{task}" in links(sent)
    assert "SGD, base_lr 0.01, momentum 0.9, weight_decay 0.0005, batch 64 x 1" in text(sent)


def test_a_hidden_run_is_shown_to_admins_only(visitor, admin):
    for path in ("/runs/bad", "/compare?uid=bad", "/compare.png?uid=bad", "/api/v1/runs/bad"):
        assert visitor.get(path).status == 404, path
    assert visitor.get("/runs?standing=hidden").status == 403
    assert [r["run"] for r in tables(admin.get("/runs?standing=hidden").text)[0]] == ["bad"]
    page = admin.get("/runs/bad").text
    assert "It is hidden: spam." in text(page)
    assert re.findall(r'name="standing" value="(\w+)"', page) == ["shown", "unverified"]
    assert "Hide it" not in visitor.get("/runs/fix1").text


def test_an_admin_hides_verifies_and_deletes(serve, database, token):
    fill(database)
    admin = Client(serve())
    admin.sign_in(token("root", "admin"))
    assert admin.submit("/standing?uid=fix1", standing="hidden", doubt="a test").status == 303
    assert [r.uid for r in database.page(standing="hidden")] == ["fix1", "bad"][::-1]
    assert admin.submit("/standing?uid=too-good", standing="shown").status == 303
    assert "too-good" in [r.uid for r in database.page()]
    page = admin.get("/delete?uid=fix2").text
    assert "Delete the run fix2 with its 3 tests?" in text(page)
    assert "fix2" in [r.uid for r in database.page()]  # asking deletes nothing
    assert admin.submit("/delete?uid=fix2").status == 303
    assert admin.get("/runs/fix2").status == 404
    assert admin.submit("/delete?uid=fix2").status == 404
    assert admin.submit("/delete?uid=%00").status == 400
    assert admin.post("/delete?uid=fix3").status == 403  # no form of ours
    visitor = Client(admin.url)
    visitor.get("/sign-in")
    assert visitor.submit("/delete?uid=fix3").status == 401
    assert visitor.get("/delete?uid=fix3").status == 401


# -- curves ----------------------------------------------------------------------------------------


def test_runs_side_by_side_have_a_table_and_one_entry_each_in_the_legend(visitor):
    page = visitor.get("/compare?uid=sin3&uid=fix1&uid=lost&log=error").text
    rows = tables(page)[0]
    assert [r["run"] for r in rows] == ["SIN2(k0=0.01, k1=0.06, l=50)", "FIX(k0=0.01)", "FIX(k0=1)"]
    # Tests of 78, 88 and 98 %, and of 71, 81 and 91 %.
    assert [r["best Top-1 (%)"] for r in rows] == ["98.00", "91.00", "-"]
    assert [(r["seed"], r["at"]) for r in rows[:2]] == [("3", "300"), ("1", "300")]
    curves = charts(page)["curves"]
    listed = [t["name"] for t in curves["traces"] if t["showlegend"]]
    assert listed == ["SIN2(k0=0.01, k1=0.06, l=50), seed 3", "FIX(k0=0.01), seed 1"]
    assert {t["legendgroup"] for t in curves["traces"]} == {"0", "1"}
    assert curves["traces"][0]["y"] == [22.0, 12.0, 2.0]  # errors
    assert curves["layout"]["yaxis"] == {"title": "error, 100 - Top-1 (%)", "type": "log"}


def test_a_run_with_two_test_nets_counts_by_the_first(serve, database):
    first = [at(100, 83.2), at(200, 82.2)]
    second = [at(100, 93.8, net=1), at(200, 88.4, net=1)]
    database.put(run("two", measurements=[first[0], second[0], first[1], second[1]]))
    visitor = Client(serve())
    metrics = tables(visitor.get("/runs/two").text)[:2]
    shown = [[table[0][name] for name in ("best, at 100", "last, at 200")] for table in metrics]
    assert [table[0]["metric"] for table in metrics] == ["Top-1 (%)", "Top-1 (%)"]
    assert shown == [["83.20", "82.20"], ["93.80", "88.40"]]
    assert "Test net #0" in text(visitor.get("/runs/two").text)
    (row,) = tables(visitor.get("/compare?uid=two").text)[0]
    assert (row["best Top-1 (%)"], row["at"], row["last Top-1 (%)"]) == ("83.20", "100", "82.20")


def test_the_test_before_the_first_update_counts_on_all_pages_of_runs(serve, database):
    """As it does for ``train`` and in the database's results."""
    database.put(run("worse", measurements=[at(0, 83.25), at(100, 71.5)]))
    visitor = Client(serve())
    metrics, _ = tables(visitor.get("/runs/worse").text)[:2]
    assert metrics[0]["best, at 0"] == "83.25"
    (row,) = tables(visitor.get("/compare?uid=worse").text)[0]
    assert (row["best Top-1 (%)"], row["at"]) == ("83.25", "0")


def test_runs_of_a_net_that_does_not_classify_show_its_outputs(serve, database):
    none = {"top1": None, "top5": None, "ac": None, "cd": None, "cdac": None, "ld": None}
    dataset = dataclasses.replace(DATASET, name="faces", digest="f1", classes=None)
    for uid, end in (("a", 0.5), ("b", 0.25)):
        tests = [
            dataclasses.replace(
                at(i, None, test_loss=loss, train_loss=None),
                **none,
                outputs={"iou": 1 - loss / 4, "l2": loss, "y": loss},
            )
            for i, loss in ((0, 4.0), (300, end))
        ]
        tests[1] = dataclasses.replace(tests[1], outputs={**tests[1].outputs, "y": 7.0})
        database.put(
            run(
                uid, dataset=dataset, task_type="other", measurements=tests,
                policy=policy(f"FIX(k0={end})"),
            )
        )  # fmt: skip
    visitor = Client(serve())
    page = visitor.get("/compare?uid=a&uid=b").text
    assert [(r["best iou"], r["at"]) for r in tables(page)[0]] == [
        ("0.875", "300"),
        ("0.9375", "300"),
    ]
    curves = charts(page)["curves"]
    assert (curves["traces"][0]["y"], curves["layout"]["yaxis"]) == ([0.0, 0.875], {"title": "iou"})
    by_loss = tables(visitor.get("/compare?uid=a&uid=b&by=l2").text)[0]
    assert [(r["best l2"], r["at"]) for r in by_loss] == [("0.5", "300"), ("0.25", "300")]
    for asked, message in (("by=y", "by: y: is more of it better"), ("by=speed", "by: unknown")):
        refused = visitor.get(
            f"/compare?uid=a&{asked}"
        )  # the form stays, so that it can be put right
        assert refused.status == 400 and message in text(refused.text)
        assert '<select name="higher">' in refused.text and "<table" not in refused.text
    assert '<input type="hidden" name="uid" value="a">' in refused.text
    assert visitor.get("/compare?uid=a&by=y&higher=false").status == 200
    assert visitor.get("/compare.png?uid=a&by=speed").status == 400
    assert visitor.get("/compare.png?uid=a&uid=b&by=l2").status == 200
    task = task_of(visitor, "faces")
    for higher, first in (("true", "FIX(k0=0.5)"), ("false", "FIX(k0=0.25)")):
        path = f"/tasks/{task}?by=l2&higher={higher}"
        (best, _) = tables(visitor.get(path).text)[0]
        assert best["policy"] == first
        (best, _) = visitor.get(f"/api/v1{path.replace('?', '/ranking?')}").json["policies"]
        assert best["policy"] == first
    shown = text(visitor.get(f"/tasks/{task}?by=l2").text)
    assert "by l2 (lower is better)" in shown and "each one's first lowest test loss" in shown
    asked = f"/recommend?task={task}&by=iou&higher=false"
    assert "iou: lower is better" in text(visitor.get(asked).text)


def test_curves_over_epochs_smoothed_with_log_axes(visitor):
    asked = "uid=sin1&uid=fix1&x=epoch&smooth=2&log=lr&log=x"
    curves = charts(visitor.get(f"/compare?{asked}").text)["curves"]
    top1 = curves["traces"][0]
    assert top1["x"] == [float(f"{i / 22.5:.8g}") for i in (100, 200, 300)]
    # Tests of 76, 86 and 96 %: means of two.
    assert top1["y"] == [76.0, 81.0, 91.0]
    assert curves["layout"]["xaxis"] == {"title": "epoch", "type": "log"}
    assert curves["layout"]["yaxis3"]["type"] == "log"
    assert "type" not in curves["layout"]["yaxis2"]
    seconds = charts(visitor.get("/compare?uid=sin1&x=seconds").text)["curves"]
    assert seconds["traces"][0]["x"] == [1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    "asked", ["x=years", "smooth=0", "log=top1", "uid=" + "&uid=".join("abcdefghi")]
)
def test_curves_that_cannot_be_drawn_are_refused(visitor, asked):
    assert visitor.get(f"/compare?uid=sin1&{asked}").status == 422


@pytest.mark.parametrize(
    "path",
    [
        "/compare.{}?uid=sin1&uid=h1",
        "/tasks/{{task}}/front.{}?functions=FIX",
        "/tasks/{{task}}/ranking.{}",
        "/tasks/{{task}}/schedules.{}",
        "/playground.{}?policy=SIN2(k0=0.01,k1=0.06,l=2000)&max_iter=5000",
    ],
)
def test_pictures_are_files(visitor, path):
    task = task_of(visitor, "digits")
    png = visitor.get(path.format("png").replace("{task}", str(task)))
    assert (png.status, png.headers["Content-Type"]) == (200, "image/png")
    assert png.body.startswith(b"\x89PNG\r\n")
    svg = visitor.get(path.format("svg").replace("{task}", str(task)))
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert "<svg" in svg.text and "<script" not in svg.text
    assert visitor.get(path.format("gif").replace("{task}", str(task))).status == 404


def test_a_front_of_values_that_no_policy_has_is_not_drawn(visitor):
    """The paper's tables have no test losses."""
    path = f"/tasks/{task_of(visitor, 'mnist')}"
    front = visitor.get(f"{path}/front.png?by=iterations,test_loss")
    assert front.status == 404
    assert "no policy has both test loss and #Iterations" in text(front.text)
    page = visitor.get(f"{path}?by=iterations,test_loss")
    assert page.status == 200
    assert not any("/front." in href for href in links(page.text))
    assert any("/front." in href for href in links(visitor.get(path).text))
    refused = visitor.get(f"{path}?by=test_loss")
    assert refused.status == 400
    assert "test_loss: it was not measured on mnist / LeNet_MNIST; known: top1, " in text(
        refused.text
    )


def test_a_schedule_that_is_none_or_too_long_is_refused(visitor):
    assert visitor.get("/playground.svg?policy=SIN9(k0=1)").status == 400
    assert visitor.get("/playground.svg?policy=FIX(k0=1)&max_iter=2000000000").status == 400


# -- tunings ---------------------------------------------------------------------------------------


def study(visitor: Client, name: str) -> str:
    page = visitor.get("/tunings").text
    return next(
        unescape(href).removeprefix(visitor.url)
        for href, title in re.findall(r'href="([^"]*/tunings/[^"]*)">([^<]*)</a>', page)
        if title == name
    )


def test_the_list_of_tunings_has_all_of_the_folders(visitor):
    rows = {r["study"]: r for r in tables(visitor.get("/tunings").text)[0]}
    names = {
        "tune-digits",
        "tune-held-out",
        "tune-also",
        "tune-loss",
        "range-digits",
        "damaged",
        "odd",
    }
    assert set(rows) == names
    assert rows["range-digits"]["kind"] == "range test (ladder)"
    assert rows["range-digits"]["result"] == "good LRs: 0.01 to 0.1, best constant LR 0.1"
    assert rows["tune-digits"]["result"] == "not ended"
    assert rows["damaged"]["result"].startswith("study.json: ")


def test_a_tuning_has_its_progress_and_what_each_candidate_got(visitor):
    page = visitor.get(study(visitor, "tune-digits")).text
    # Three trainings of 20 iterations, six of 40.
    assert "300; budget 1,000 (30 %)" in text(page)
    assert "The band is the range of good LRs: 0.01 to 0.1." in text(page)
    assert "Best so far 95.00 %" in text(page)
    importance, trainings = tables(page)
    best = trainings[0]
    assert best["policy"] == "TRI(k0=0.001, k1=0.02, l=20)"
    assert (best["iterations"], best["best Top-1 (%)"], best["at"]) == ("40 of 200", "95.00", "40")
    assert {r["for"] for r in trainings if r["policy"].startswith("FIX")} == {"range test"}
    assert importance  # of all functions
    # Cost, learning curves, range test, parallel coordinates.
    assert page.count('type="application/json"') == 4
    curves = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[1])
    assert len(curves["traces"]) == 9
    assert "9: 6 for search, 3 for range test" in text(page)


def test_a_tuning_whose_range_was_given_made_no_range_test(tmp_path):
    write_studies(tmp_path)
    file = tmp_path / "tune-digits" / "study.json"
    content = json.loads(file.read_text())
    content["experience"]["range"] = [0.001, 0.1, 0.01, None]
    del content["range"]  # that of a range test
    file.write_text(json.dumps(content))
    folders = StudyFolders([tmp_path])
    (found,) = [study for study in folders.studies() if study.name.endswith("tune-digits")]
    trainings, _ = folders.trainings(found)
    assert len(trainings) == 9 and {found.stage(one) for one in trainings} == {SEARCH}
    assert found.good == (0.001, 0.1)


@pytest.mark.parametrize(
    ("told", "good"),
    [
        ({"low": 0.01, "high": 0.1, "best": 0.05}, (0.01, 0.1)),
        ({"low": 0.1, "high": 0.01}, None),
        (MARKUP, None),
        (None, None),
    ],
)
def test_the_range_of_a_tuning_is_known_before_it_has_ended(tmp_path, told, good):
    write_studies(tmp_path)
    file = tmp_path / "tune-digits" / "study.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "range": told}))
    (found,) = [s for s in StudyFolders([tmp_path]).studies() if s.name == "tune-digits"]
    assert (found.result, found.good) == (None, good)


def test_a_training_that_goes_on_is_as_far_as_its_last_test(tmp_path):
    """Its record has the end of the part before; pages follow the tests, and so does the last change."""
    write_studies(tmp_path)
    going_on = tmp_path / "tune-digits" / "trainings" / "tri-0"
    record = json.loads((going_on / "run.json").read_text())
    assert record["iteration"] == 40
    (going_on / "run.json").write_text(json.dumps({**record, "iteration": 20}))
    later = time.time() + 3600
    os.utime(going_on / "measurements.jsonl", (later, later))
    folders = StudyFolders([tmp_path])
    found = folders.studies()[0]
    (read,) = [one for one in folders.trainings(found)[0] if one.name == "tri-0"]
    assert (found.name, found.changed, read.iteration) == ("tune-digits", later, 40)


def test_a_folder_that_is_itself_a_study_or_a_run_has_its_own_name(tmp_path):
    write_studies(tmp_path)
    study = tmp_path / "tune-digits"
    assert [one.name for one in StudyFolders([study]).studies()] == ["tune-digits"]
    run = study / "trainings" / "tri-0"
    assert [one.name for one in LiveFolders([run]).runs()] == ["tri-0"]
    assert "trainings/tri-0" in [one.name for one in LiveFolders([study]).runs()]


def test_a_range_test_is_one_before_it_ends(tmp_path):
    write_studies(tmp_path)
    ended = tmp_path / "range-digits"
    content = json.loads((ended / "study.json").read_text())
    content["plan"]["form"] = "ladder"
    (ended / "study.json").write_text(json.dumps(content))
    (ended / "range.json").unlink()
    folders = StudyFolders([tmp_path])
    (found,) = [study for study in folders.studies() if study.name.endswith("range-digits")]
    trainings, _ = folders.trainings(found)
    assert (found.kind, found.verdict) == ("range test (ladder)", "")
    assert {found.stage(one) for one in trainings} == {RANGE_TEST}


def test_a_range_test_without_a_range_says_why_and_a_ramp_has_no_tests(serve, tmp_path):
    write_studies(tmp_path)
    ended = tmp_path / "range-digits"
    reason = "the loss of the range test did not fall"
    told = {"form": "ramp", "low": None, "high": None, "best": None, "failure": reason}
    (ended / "range.json").write_text(json.dumps(told))
    visitor = Client(serve(runs=(str(tmp_path),)))
    rows = {r["study"]: r for r in tables(visitor.get("/tunings").text)[0]}
    assert rows["range-digits"]["result"] == reason
    page = visitor.get(study(visitor, "range-digits")).text
    assert reason in text(page) and "a test every" not in text(page)
    assert list(tables(page)[-1][0]) == [
        "policy", "seed", "for", "iterations", "ended", "why it was tried"
    ]  # fmt: skip


def test_the_chart_of_a_range_test_has_the_seed_of_its_result(tmp_path):
    """Another seed in the same folder: study.json keeps the first."""
    write_studies(tmp_path)
    ended = tmp_path / "range-digits"
    result = json.loads((ended / "range.json").read_text())
    for seed, shown in ((1, True), (3, False)):  # the trainings have seed 1
        (ended / "range.json").write_text(json.dumps({**result, "seed": seed}))
        folders = StudyFolders([tmp_path])
        (found,) = [study for study in folders.studies() if study.name.endswith("range-digits")]
        trainings, _ = folders.trainings(found)
        assert (range_chart(found, trainings, 20) is not None) == shown


def test_a_tuning_by_held_out_records_tells_both_results(visitor):
    page = visitor.get(study(visitor, "tune-held-out")).text
    words = text(page)
    assert "held-out records: 10 % of the training set, 130 of 1,297, drawn with seed 1" in words
    assert "Best so far 99.00 % on held-out records" in words  # not the test set's 99.50
    choices, settings, trainings = tables(page)
    assert [(r["Top-1 (%)"], r["test loss"], r["ended"]) for r in settings] == [
        ("99.00", "0.125", "finished"), ("98.00", "0.25", "finished"), ("-", "-", "diverged"),
    ]  # fmt: skip
    assert settings[1]["settings"] == "batch=50"
    assert list(choices[0].values())[1:] == ["99.00", "100", "94.25", "95.50"]
    assert list(choices[1].values())[1:] == ["-", "-", "-", "-"]
    assert [(r["tested on"], r["for"]) for r in trainings] == [
        ("test set", "finalists"),
        ("held-out records", "finalists"),
        ("held-out records", "search"),
    ]
    # The finalist in colour is the training on all records; the two that chose it are grey.
    drawn = re.findall(r'<script type="application/json">(.*?)</script>', page)
    cost, curves = (json.loads(chart) for chart in drawn[:2])
    assert cost["layout"]["yaxis"]["title"] == "Top-1 (%) on held-out records"
    shown = [(t["name"], t["y"], t["line"]["color"] == GREY) for t in curves["traces"]]
    assert shown == [
        ("on held-out records", [98.0, 97.0], True),
        ("on held-out records", [99.0, 97.0], True),
        ("FIX(k0=0.1)", [99.5, 90.0], False),
    ]
    assert [t["showlegend"] for t in curves["traces"]] == [True, False, True]
    assert "tested on the test set, are in colour, those tested on held-out records grey" in words
    assert "Judged by the test set" in text(visitor.get(study(visitor, "tune-digits")).text)


def test_trainings_with_other_settings_are_told_apart(visitor):
    page = visitor.get(study(visitor, "tune-also")).text
    words, trainings = text(page), tables(page)[-1]
    found = [(r["policy"], r["settings"], r["for"], r["iterations"]) for r in trainings]
    small = "batch=25, weight_decay=1e-05"
    assert found[:4] == [
        ("FIX(k0=0.2)", small, "other settings", "40 of 400"),
        ("FIX(k0=0.1)", small, "finalists", "80 of 400"),
        ("FIX(k0=0.1)", "own", "finalists", "40 of 200"),
        ("FIX(k0=0.2)", "own", "range test", "20 of 200"),
    ]
    # 40 + 20, half of 80 + 40 with half the batch, and 10 that nothing is known of.
    assert "Iterations 130" in words
    assert "Best so far 75.00 %" in words
    curves = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[1])
    finals = {t["name"]: t["x"] for t in curves["traces"] if t["name"] != "other trainings"}
    assert finals == {f"FIX(k0=0.1) with {small}": [20, 40], "FIX(k0=0.1)": [20, 40]}
    assert curves["layout"]["xaxis"]["title"] == "iteration, as of the own batch"
    # The page that follows one of them leads back.
    live = unescape(re.findall(r'href="([^"]*/live/[^"]*)">FIX\(k0=0.2\)', page)[0])
    assert "tune-also" in text(visitor.get(live.removeprefix(visitor.url)).text)


def test_a_tuning_by_a_loss_shows_the_lowest(visitor):
    page = visitor.get(study(visitor, "tune-loss")).text
    words, odd = text(page), " ".join(MARKUP.split())
    assert f"accuracy, the lowest {odd}, 0.25" in words
    assert "Start weights lenet.caffemodel, 3 of 5 layers filled" in words
    assert "Best so far 0.5 " in words
    best = tables(page)[-1][0]
    assert (best["policy"], best[f"best {odd}"], best["at"]) == ("FIX(k0=0.1)", "0.5", "20")
    # The loss rises with these k0 in this order: 0.1, 0.01, 0.001, 0.002, 0.005. Ranks of k0: 5, 4, 1, 2, 3,
    # of the result (the lowest loss is the best): 5, 4, 3, 2, 1; 1 - 6 (0 + 0 + 4 + 0 + 4) / 120 = 0.6.
    rows = {r["parameter"]: r for r in tables(page)[0]}
    assert rows["highest LR"]["correlation"] == "0.60"


def test_importance_is_a_rank_correlation(visitor):
    page = visitor.get(study(visitor, "tune-digits") + "?function=TRI").text
    rows = {r["parameter"]: r for r in tables(page)[0]}
    # Top-1 always falls as k1 rises; l is 20, 40, 20, 40, ..: ranks 2 and 5, Spearman -0.2928.
    assert (rows["k1"]["correlation"], rows["k1"]["mark"]) == ("-1.00", "")
    assert (rows["l"]["correlation"], rows["l"]["mark"]) == ("-0.29", "~")
    assert "k0" not in rows  # all have the same
    few = visitor.get(study(visitor, "tune-digits") + "?function=FIX").text
    assert "3 candidates: too few reached a common test" in text(few)


def test_parallel_coordinates_are_logarithmic_where_values_are_far_apart(visitor):
    page = visitor.get(study(visitor, "tune-digits") + "?function=TRI").text
    chart = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[-1])
    names = chart["layout"]["xaxis"]["ticktext"]
    assert names == ["k0", "k1", "l", "Top-1 (%)"]
    k1 = [t["y"][1] for t in chart["traces"]]
    # 0.02 to 0.8, 40 times as much: each factor of two is as far as the next.
    place = {k1: math.log(k1 / 0.02) / math.log(40) for k1 in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)}
    assert k1 == [round(value, 4) for value in place.values()]
    assert [t["y"][2] for t in chart["traces"]] == [0.0, 1.0] * 3  # l is 20 or 40: linear


def test_an_axis_of_a_tuning_leaves_out_what_is_far_below_most_and_says_so(serve, tmp_path):
    folder = tmp_path / "runs" / "tune"
    folder.mkdir(parents=True)
    plan = {"max_iter": 20, "test_interval": 10, "seed": 1, "goal": "accuracy", "chance": 10.0}
    (folder / "study.json").write_text(json.dumps({"plan": plan}))
    for n, top1 in enumerate((10.0, 90.0, 92.0, 93.0, 94.0)):
        write_training(folder, f"t{n}", f"FIX(k0={n + 1})", [(10, 9.0), (20, top1)])
    visitor = Client(serve(runs=(str(tmp_path / "runs"),)))
    page = visitor.get(study(visitor, "tune")).text
    assert "1 far worse than the others is beyond the axis." in text(page)
    cost = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    low, high = cost["layout"]["yaxis"]["range"]
    # The lowest quarter is 90, the best 94: the axis begins at 86, with 5 % of 8 around.
    assert (low, high) == (pytest.approx(85.6), pytest.approx(94.4))
    assert cost["traces"][1]["y"] == [10.0, 90.0, 92.0, 93.0, 94.0]  # all of them are there


@pytest.mark.ci
def test_pictures_of_a_tuning_are_those_of_its_page(visitor):
    address = study(visitor, "tune-digits")
    linked = [
        href.removeprefix(visitor.url)
        for href in links(visitor.get(f"{address}?function=TRI").text)
        if re.search(r"/tunings/.*\.(png|svg)(\?|$)", href)
    ]
    kinds = ("cost", "curves", "range", "parallel")
    plain = [f"{address}/{kind}.{form}" for kind in kinds for form in ("png", "svg")]
    assert linked == [path + "?function=TRI" * ("parallel" in path) for path in plain]
    for path in linked:
        answer = visitor.get(path)
        assert answer.status == 200, path
        assert answer.body.startswith(b"\x89PNG\r\n") == (".png" in path)
    svg = visitor.get(f"{address}/parallel.svg?function=TRI").text
    for label in ("tune-digits: candidates", "k1", "0.02", "0.8"):
        assert f"<!-- {label} -->" in svg
    assert visitor.get(f"{address}/parallel.svg?function=FIX").status == 404  # too few
    assert visitor.get(f"{address}/nothing.svg").status == 404
    assert visitor.get(f"{address}/cost.gif").status == 404
    odd = visitor.get(study(visitor, "odd") + "/cost.svg")
    assert odd.status == 200 and "<script" not in odd.text


def test_damaged_files_of_a_tuning_are_one_line_each(visitor):
    page = visitor.get(study(visitor, "damaged"))
    assert page.status == 200
    assert "study.json: " in text(page.text)
    assert "one: " in text(page.text)
    odd = visitor.get(study(visitor, "odd"))
    assert odd.status == 200
    assert " ".join(MARKUP.split()) in text(odd.text)


# -- the paper, about ------------------------------------------------------------------------------


def test_the_papers_tables_have_ours_beside_them(serve, database):
    printed = next(r.record for r in paper_rows("IX") if r.record.policy.function == "SINEXP")
    task = paper_task("resnet32_cifar10")

    def ours(seed: int, top1: float, **others):
        test = Measurement(
            iteration=64000, lr=0.1, top1=top1, top5=99.0, ac=0.9, cd=0.1, cdac=0.01, test_loss=0.5,
            train_loss=0.1, ld=0.4, seconds=1.0, samples=10000, silent_classes=0,
        )  # fmt: skip
        values = {
            "dataset": task.dataset, "network": task.network, "policy": printed.policy, "seed": seed,
            "solver": paper_solver("resnet32_cifar10"), "max_iter": 64000, "test_interval": 1000,
            "measurements": [test],
        }  # fmt: skip
        return run(f"p{seed}", **{**values, **others})

    database.put_many([ours(1, 92.0), ours(2, 93.0), ours(3, 50.0, max_iter=1000)])
    visitor = Client(serve())
    counts = {r["table"]: r["measured here"] for r in tables(visitor.get("/paper").text)[0]}
    assert counts["Table IX: ResNet-32 on CIFAR-10"] == "1"
    rows = tables(visitor.get("/paper/table9").text)[0]
    row = next(r for r in rows if r["policy"].startswith("SINEXP"))
    # The paper: 92.81 ± 0.08; ours 92.5 ± 0.5, within both deviations.
    assert row["Top-1 (%)"] == "92.81 ± 0.08" + "92.50 ± 0.50 ✓"
    assert row["trainings"] == "2"
    assert row["runs"].split() == ["paper", "best", "all"]
    assert visitor.get("/paper/table1").status == 404


def test_about_has_every_metric_and_the_terms(visitor):
    page = visitor.get("/about").text
    assert "CC BY <4.0>" in text(page)
    for heading in ("Top-1 (%)", "Top-5 (%)", "AC", "CD", "CDAC", "test loss", "LD", "#Iterations"):
        assert f"<dt>{heading}</dt>" in page
    assert "the standard deviation of the same probabilities (4). Lower is better." in text(page)
