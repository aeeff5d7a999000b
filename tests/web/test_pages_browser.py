"""The pages in a real browser: Chromium, headless, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from lrbench_caffe.web.settings import WebSettings
from tests.web.pages_data import write_studies, write_training
from tests.web.serving import serving

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow  # a browser takes its time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--no-sandbox", "--disable-background-networking"]
ROOT = Path(__file__).parents[2]
PATIENCE = 120_000  # milliseconds: the machine may have much else to do
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
PATHS = (
    "/", "/tasks/4", "/tasks/5", "/tasks/4?w.top1=2&functions=FIX", "/tasks/4?by=nothing", "/runs",
    "/runs?standing=unverified", "/runs/sin1", "/runs/h1", "/runs/lost", "/compare?uid=sin1&uid=h1",
    "/tunings", "/playground", "/playground?policy=x", "/paper", "/paper/table7", "/recommend",
    "/uploads", "/live", "/about", "/sign-in", "/nothing",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


class Visit:
    """A browser's page, and what went wrong in it."""

    def __init__(self, page: sync_api.Page, base: str) -> None:
        self.page, self.base = page, base
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._told)
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))

    def _told(self, message: sync_api.ConsoleMessage) -> None:
        refused = "status of 40" in message.text  # a page that is not there, on purpose
        if message.type in ("error", "warning") and not refused:
            self.problems.append(f"{self.page.url}: {message.text}")

    def go(self, path: str) -> sync_api.Page:
        self.page.goto(self.base + path, wait_until="load")
        return self.page


@pytest.fixture
def visit(browser: sync_api.Browser, site) -> Iterator[Visit]:
    context = browser.new_context(viewport=DESK)
    made = Visit(context.new_page(), site.url)
    yield made
    context.close()
    assert made.problems == []


def links(page: sync_api.Page) -> list[str]:
    return page.eval_on_selector_all("table a", "links => links.map(a => a.pathname)")


def wait_until(page, expression):
    """Playwright's own ``wait_for_function`` repeats by eval(), which our pages forbid."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never: {expression}")


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_every_page_is_accessible_and_fits(browser, site, size, scheme):
    context = browser.new_context(viewport=size, color_scheme=scheme)
    visit = Visit(context.new_page(), site.url)
    paths = [*PATHS, *links(visit.go("/tunings")), *links(visit.go("/live"))[:1]]
    found = []
    for path in paths:
        page = visit.go(path)
        if page.query_selector("figure.chart"):
            page.wait_for_selector(".main-svg")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > size["width"]:
            found.append(f"{path}: {width} pixels wide")
        violations = axe.Axe().run(page).response["violations"]
        found += [
            f"{path}: {v['impact']} {v['id']}: {v['nodes'][0]['html']}"
            for v in violations
            if v["impact"] in ("serious", "critical")
        ]
    context.close()
    assert found == []
    assert visit.problems == []


def test_text_of_others_does_nothing(visit):
    asked = []
    visit.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    visit.page.on(
        "request", lambda r: asked.append(r.url) if not r.url.startswith(visit.base) else 0
    )
    for path in ("/", "/tasks/5", "/runs", "/runs/h1", "/runs/sent", "/compare?uid=h1", "/uploads"):
        visit.go(path)
        visit.page.wait_for_timeout(300)
        assert visit.page.query_selector("img") is None, path
    assert asked == []


def test_a_table_is_sorted_by_a_click_and_by_the_keyboard(visit):
    page = visit.go("/runs?task=4")
    column = "table tbody tr td:nth-child(6)"
    best = page.get_by_role("button", name="best Top-1 (%)")
    best.click()
    rising = page.eval_on_selector_all(column, "cells => cells.map(c => c.textContent)")
    numbers = [float(v) for v in rising if v != "-"]
    assert numbers == sorted(numbers) and rising[-1] == "-"
    assert len(numbers) == 8
    best.press("Enter")
    falling = page.eval_on_selector_all(column, "cells => cells.map(c => c.textContent)")
    assert [float(v) for v in falling[:-1]] == numbers[::-1]
    assert page.get_attribute("th:nth-child(6)", "aria-sort") == "descending"


def test_sliders_and_choices_end_in_an_address_that_shows_the_same(visit):
    page = visit.go("/tasks/4")
    page.get_by_text("Weights: rank by a weighted mean instead").click()
    page.get_by_label("Top-1 (%), slider").fill("1")
    page.get_by_label("#Param, slider").fill("3")
    page.get_by_text("Which policies: functions, sources, starts").click()
    page.get_by_label("scratch").check()
    page.get_by_role("button", name="Show").click()
    asked = parse_qs(urlsplit(page.url).query)
    assert asked == {
        "top": ["50"], "w.top1": ["1"], "w.num_params": ["3"], "starts": ["scratch"],
    }  # fmt: skip
    first = page.inner_text("table tbody tr:first-child")
    assert "FIX(k0=0.01)" in first
    visit.go(page.url.removeprefix(visit.base))
    assert page.inner_text("table tbody tr:first-child") == first
    assert page.input_value("[name='w.num_params']") == "3"


def test_marked_policies_are_drawn_side_by_side(visit):
    page = visit.go("/tasks/4?starts=scratch")
    for box in page.query_selector_all("[name=summary]"):
        box.check()
    page.get_by_role("button", name="Draw the curves of the marked policies").click()
    assert parse_qs(urlsplit(page.url).query)["uid"] == ["sin3", "fix3"]
    page.wait_for_selector(".main-svg")
    page.locator("[name=x]").select_option("epoch")
    page.get_by_label("log losses").check()
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector(".main-svg")
    assert parse_qs(urlsplit(page.url).query)["log"] == ["loss"]
    layout = page.evaluate("document.querySelector('.js-plotly-plot').layout")
    assert layout["xaxis"]["title"]["text"] == "epoch"
    assert layout["yaxis2"]["type"] == "log"
    assert page.evaluate("document.querySelector('.js-plotly-plot').data.length") == 8


def test_curves_by_the_log_of_the_error_hide_by_a_click_on_the_legend(visit):
    page = visit.go("/compare?uid=sin1&uid=fix1")
    page.wait_for_selector(".main-svg")
    page.get_by_label("log error").check()
    page.get_by_role("button", name="Draw").press("Enter")
    page.wait_for_selector(".main-svg")
    assert parse_qs(urlsplit(page.url).query)["log"] == ["error"]
    assert page.evaluate("document.querySelector('.js-plotly-plot').layout.yaxis.type") == "log"
    entries = page.locator(".legendtext")
    assert entries.all_text_contents() == [
        "SIN2(k0=0.01, k1=0.06, l=50), seed 1", "FIX(k0=0.01), seed 1",
    ]  # fmt: skip
    page.locator(".legendtoggle").first.click()
    wait_until(
        page,
        "document.querySelector('.js-plotly-plot').data.filter(t => t.visible === 'legendonly').length === 4",
    )


def test_every_line_is_seen_on_a_dark_page(browser, site):
    context = browser.new_context(color_scheme="dark", viewport=DESK)
    visit = Visit(context.new_page(), site.url)
    eight = "&".join(f"policy=FIX(k0=0.0{n})" for n in range(1, 9))
    page = visit.go(f"/playground?{eight}")
    page.wait_for_selector(".main-svg")
    colours = page.eval_on_selector_all(
        ".scatterlayer .js-line", "lines => lines.map(l => l.style.stroke)"
    )
    assert len(colours) == 8
    assert "rgb(0, 0, 0)" not in colours
    context.close()
    assert visit.problems == []


def test_the_legend_is_below_the_drawing_on_a_phone(browser, site):
    context = browser.new_context(viewport=PHONE)
    visit = Visit(context.new_page(), site.url)
    texts = [f"TRIEXP(k0=0.000{n}, k1=0.06, gamma=0.99994, l=2000)" for n in range(1, 9)]
    page = visit.go("/playground?" + urlencode([("policy", text) for text in texts]))
    page.wait_for_selector(".legend")
    box = "e => { const b = e.getBoundingClientRect(); return [b.top, b.bottom]; }"
    drawing, title, legend = (
        page.eval_on_selector(part, box) for part in (".nsewdrag", ".xtitle", ".legend")
    )
    assert drawing[1] <= title[0] and title[1] <= legend[0]
    assert drawing[1] - drawing[0] > 150
    context.close()


def test_a_run_is_followed_with_a_log_axis_and_leads_to_its_tuning(visit):
    page = visit.go("/live")
    page.get_by_role("link", name="tune-digits/trainings/fix-0").click()
    page.wait_for_selector(".main-svg")
    page.get_by_label("log losses").press("Space")
    wait_until(page, "document.querySelector('.js-plotly-plot').layout.yaxis2.type === 'log'")
    page.get_by_label("log error").check()
    wait_until(page, "document.querySelector('.js-plotly-plot').data[0].y[1] === 40")
    page.get_by_label("Training loss: mean of").fill("2")
    # Losses of 2, 1.99, ..: the means of two.
    wait_until(
        page, "Math.abs(document.querySelector('.js-plotly-plot').data[2].y[1] - 1.995) < 1e-9"
    )
    assert parse_qs(urlsplit(page.url).query) == {"smooth": ["2"], "log": ["error", "loss"]}
    page.reload()  # the address has the view
    page.wait_for_selector(".main-svg")
    wait_until(page, "document.querySelector('.js-plotly-plot').layout.yaxis2.type === 'log'")
    assert page.get_by_label("log error").is_checked()
    assert not page.get_by_label("log LR").is_checked()
    page.get_by_role("link", name="Its tuning").click()
    assert page.inner_text("h1") == "tune-digits"


def test_the_list_of_running_trainings_is_sorted_and_stays_so(visit):
    page = visit.go("/live")
    page.get_by_role("button", name="Top-1 (%)").press("Enter")
    column = "tbody tr td.top1"
    read = "cells => cells.map(c => c.textContent)"
    rising = page.eval_on_selector_all(column, read)
    assert [float(v) for v in rising] == sorted(map(float, rising)) and len(rising) > 5
    with page.expect_response("**/live.json"):
        pass
    page.wait_for_timeout(200)
    assert page.eval_on_selector_all(column, read) == rising
    assert page.get_by_role("button", name="progress").count() == 0


def test_from_the_ranking_to_what_to_try_and_back(visit):
    page = visit.go("/tasks/4")
    page.get_by_role("link", name="policies to try on it").click()
    page.get_by_role("heading", name="Policies for digits").wait_for()
    page.wait_for_selector(".main-svg")
    page.get_by_role("link", name="the ranking that it comes from").first.click()
    assert page.url.startswith(f"{visit.base}/tasks/4")
    page.get_by_role("link", name="Names").click()
    assert page.url.endswith("/about#metrics")
    assert "To rank by it: top1." in page.inner_text("dl")


def test_what_a_chart_shows_is_on_the_page_without_javascript(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/tasks/4")
    assert page.inner_text("main").count("The chart needs JavaScript.") == 2
    page.get_by_text("Weights: rank by a weighted mean instead").click()
    page.get_by_label("#Param").fill("1")
    page.get_by_role("button", name="Show").click()
    assert "FIX(k0=0.01)" in page.inner_text("table tbody tr:first-child")
    context.close()


def test_a_page_can_be_used_by_the_keyboard(visit):
    page = visit.go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_an_uploaded_solver_gets_policies_to_try(visit):
    page = visit.go("/recommend")
    page.set_input_files("#solver_file", ROOT / "solvers/lenet_mnist_solver.prototxt")
    net = ROOT / "prototxt/lenet_mnist_train_test.prototxt"
    page.get_by_label("or its text").nth(1).fill(net.read_text(encoding="utf-8"))
    mnist = page.eval_on_selector_all(
        "#data option", "all => all.filter(o => o.text.startsWith('mnist')).map(o => o.value)"
    )
    page.select_option("#data", mnist[0])
    page.get_by_role("button", name="Recommend").nth(1).click()
    page.get_by_role("heading", name="Policies for mnist / LeNet_MNIST").wait_for()
    page.wait_for_selector(".main-svg")
    evidence = page.inner_text("section >> nth=0")
    assert "on the same task" in evidence and "Wu et al. 2019, Table VII" in evidence
    assert "Top-1 99.3" in evidence
    policy = page.inner_text("section h2 >> nth=0").partition(". ")[2]
    page.get_by_role("link", name="In the playground").first.click()
    page.wait_for_selector(".main-svg")
    assert page.input_value("input[name=policy] >> nth=0") == policy


def test_a_tuning_under_way_grows_on_the_page(browser, tmp_path):
    write_studies(tmp_path / "runs")
    settings = WebSettings(
        db=str(tmp_path / "lr.sqlite"), runs=(str(tmp_path / "runs"),), requests=10**6
    )
    with serving(settings) as url:
        context = browser.new_context()
        visit = Visit(context.new_page(), url)
        page = visit.go("/tunings")
        page.get_by_role("link", name="tune-digits").click()
        assert "300; budget 1,000" in page.inner_text("#study")
        write_training(tmp_path / "runs" / "tune-digits", "new", "FIX(k0=0.02)", [(100, 99.0)])
        page.get_by_text("99.00 %").wait_for()
        assert "400; budget 1,000" in page.inner_text("#study")
        page.get_by_role("button", name="iterations").click()  # the new table can be sorted, too
        context.close()
    assert visit.problems == []
