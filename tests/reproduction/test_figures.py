"""The paper's figures are drawn: files, what is in them, and the same bytes every time."""

from __future__ import annotations

import pytest

from lrbench_caffe.lr import FunctionPolicy
from lrbench_caffe.reproduction import figures
from lrbench_caffe.reproduction.figures import figure1, figure3, figure4, figure5
from lrbench_caffe.reproduction.plan import plan, scale, select
from tests.reproduction.runs import measured, run


@pytest.fixture
def texts(tmp_path):
    """Draw into an SVG and return the words in it."""

    def draw(figure, of, records) -> list[str]:
        path = tmp_path / "figure.svg"
        figure(path, of, records)
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.split("<!-- ")[1].split(" -->")[0] for line in lines if "<!-- " in line]

    return draw


@pytest.mark.ci
def test_figure_1(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(figures, "EVERY", 50)  # drawing 100 frames takes seconds
    files = figure1(tmp_path)
    assert [file.name for file in files] == [
        "figure1_070.png",
        "figure1_115.png",
        "figure1_199.png",
        "figure1.gif",
    ]
    for file in files[:3]:
        with Image.open(file) as image:
            assert image.format == "PNG" and len(image.convert("RGB").getcolors(1 << 20)) > 100
    with Image.open(files[3]) as animation:
        assert (animation.format, animation.n_frames, animation.info["loop"]) == (
            "GIF",
            5,
            0,
        )  # 0, 50, .., 150, 199
        first = animation.convert("RGB").tobytes()
        animation.seek(4)
        assert animation.convert("RGB").tobytes() != first
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in figure1(tmp_path)] == before


def test_figure_3_has_a_curve_for_each_number_of_epochs(texts):
    of = plan("figure3")
    tests = [measured(t, 50.0 + t / 2000) for t in range(0, 70_001, 250)]
    records = [run(of, row.policy, seed, tests) for row in of.rows for seed in (1, 2)]
    words = texts(figure3, of, records)
    assert {f"{n} epochs" for n in (10, 20, 40, 80, 140)} <= set(words)
    assert {"paper", "k0", "error (%)", "Top-1 (%)"} <= set(words)


def test_figure_3_takes_the_highest_top1_up_to_each_epoch(monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(figures, "range_figure", lambda curves, **others: drawn.update(curves))
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    of = select(plan("figure3"), "1-3")
    # 10 of 140 epochs are 5000 of 70,000 iterations.
    one = [measured(0, 10.0), measured(4000, 60.0), measured(5000, 58.0), measured(9000, 70.0)]
    other = [measured(0, 10.0), measured(5000, 62.0)]
    lost = [measured(0, 10.0)]
    records = [
        run(of, of.rows[0].policy, 1, one),
        run(of, of.rows[0].policy, 2, other),
        run(of, of.rows[1].policy, 1, lost, status="diverged"),
        run(of, of.rows[0].policy, 9, [measured(0, 99.0)]),  # not one of the seeds
    ]
    figure3(tmp_path / "x.png", of, records)
    assert drawn["10 epochs"] == [(5e-5, 61.0, 1.0), (1e-4, 10.0, None)]
    assert drawn["20 epochs"] == [(5e-5, 66.0, 4.0), (1e-4, 10.0, None)]
    records.append(run(of, of.rows[1].policy, 2, other))  # beside it the lost one does not count
    figure3(tmp_path / "x.png", of, records)
    assert drawn["10 epochs"] == [(5e-5, 61.0, 1.0), (1e-4, 62.0, None)]


def test_figure_4_is_of_trainings_that_finished(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "steps_figure", lambda points, **others: drawn.extend(points))
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    of = select(plan("figure4"), "1-2")
    records = [
        run(of, of.rows[0].policy, 1, [measured(70_000, 78.0)]),
        run(of, of.rows[0].policy, 2, [measured(0, 10.0)], status="diverged"),
        run(of, of.rows[1].policy, 1, [measured(0, 10.0)], status="diverged"),
    ]
    figure4(tmp_path / "x.png", of, records)
    assert [(point.mean, point.sd) for point in drawn] == [(78.0, None)]


def test_figure_4_has_the_papers_numbers(texts):
    of = plan("figure4")
    records = [run(of, row.policy, 1, [measured(1000, 79.0)]) for row in of.rows]
    assert {"paper", "measured"} <= set(texts(figure4, of, records))
    assert "paper" in texts(figure4, of, [])  # nothing trained yet


def test_figure_5_names_policy_and_seed(texts):
    of = plan("figure5")
    tests = [measured(t, 60.0 + t / 5000) for t in range(0, 70_001, 1000)]
    policy = "NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])"
    words = texts(figure5, of, [run(of, of.rows[0].policy, 1, tests)])
    assert {f"{policy}, seed 1", "Top-1", "test loss", "training loss"} <= set(words)
    assert f"{policy}, not trained" in " ".join(texts(figure5, of, []))  # in two lines


@pytest.mark.parametrize(
    ("name", "figure"), [("figure3", figure3), ("figure4", figure4), ("figure5", figure5)]
)
def test_a_scaled_figure_says_so_and_has_no_numbers_of_the_paper(texts, name, figure):
    of = scale(plan(name), 0.01)
    records = [
        run(of, row.trained, 1, [measured(100, 50.0), measured(700, 60.0)]) for row in of.rows
    ]
    words = texts(figure, of, records)
    assert "SCALED DOWN: 700 of 70000 iterations" in words
    assert "paper" not in words


def test_full_runs_are_not_drawn_into_a_scaled_figure(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(figures, "steps_figure", lambda points, **others: seen.extend(points))
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    whole = plan("figure4")
    policy = FunctionPolicy("STEP", k0=0.001, gamma=0.85, l=1000)
    figure4(tmp_path / "x.png", scale(whole, 0.5), [run(whole, policy, 1, [measured(1000, 79.0)])])
    assert seen == []
