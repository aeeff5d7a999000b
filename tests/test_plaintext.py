"""Text from outside is text, in every kind of output."""

from __future__ import annotations

import ast
import csv
import io
import json
import subprocess
import sys
from xml.dom import minidom

import numpy as np
import pytest

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plaintext import csv_cell, markdown, one_line, visible
from lrbench_caffe.plots import Pair, RunCurves, comparison_figure, runs_figure, training_figure
from lrbench_caffe.plots.files import save
from lrbench_caffe.records import Spread
from lrbench_caffe.tabular import csv_text, json_text, markdown_table
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console, TextColumn, progress
from lrbench_caffe.terminal.streams import Escaping
from lrbench_caffe.terminal.tables import Layout, print_table
from tests.test_architecture import SOURCES, imported, read

NAMES = (
    "Net[/x]", "LeNet [v2]", "[bold]", ":smile:", "a$b$c", "_loss", "x" * 500, "two\nlines", r"\frac{",
    "\x1b[2J\a\r\x9b1m", "\u202eevil", "caf\udce9", "\0", "\ufffe", "<script>", "字形", "{name}", "%s",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ± 字", "plain ± 字"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb\a", "a\\rb\\x07"),
        ("\x9b1m", "\\u009b1m"),
        ("\u202e", "\\u202e"),
        ("caf\udce9", "caf\\udce9"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_escaped(text, expected):
    assert visible(text) == expected
    assert "\n" not in one_line(text)


def test_escapes_in_json_mean_the_same_text():
    value = "".join(map(chr, range(0x20, 0x3000))) + "\ufeff\uffff"
    assert json.loads(visible(json.dumps(value, ensure_ascii=False))) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_whole_in_a_table_on_the_terminal(name, capsys):
    rows = [["task", "number"], [name, "1"]]
    print_table(rows, Layout(("task", "number"), text=("task",)), title=name, notes=[name])
    out = capsys.readouterr().out
    assert out.count(one_line(name)) == 3


def test_progress_bars_show_names_as_they_are():
    console = Console(io.StringIO(), width=100)
    shown = progress(console, TextColumn("{task.description} {task.fields[status]}"))
    shown.add_task("Net[/x]", status="\x1b[2J:smile:")
    console.print(shown.get_renderable())
    assert console.file.getvalue().strip() == "Net[/x] \\x1b[2J:smile:"


def test_all_that_a_command_prints_is_escaped(capsys):
    def main(_):
        print("\x1b[31m")
        Console().print("[bold]\x1b")
        raise cli.LRBenchError("Net\n\x1b")

    assert cli.run(main, []) == 1
    done = capsys.readouterr()
    assert done.out == "\\x1b[31m\n[bold]\\x1b\n"
    assert done.err == "error: Net\\n\\x1b\n"
    assert not isinstance(sys.stdout, Escaping)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_any_name_can_be_printed_in_any_encoding(encoding):
    printing = "lambda _: print('net \\udce9 \\u5b57 \\u00b1')"
    code = f"from lrbench_caffe.terminal import cli; cli.run({printing}, [])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": encoding},
        check=True,
    )
    assert done.stdout.startswith(b"net \\udce9 ")
    assert not done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LeNet_MNIST", "LeNet_MNIST"),
        ("SIN2(k0=0.01, k1=0.06, l=2000)", "SIN2(k0=0.01, k1=0.06, l=2000)"),
        ("NSTEP(k0=0.1, gamma=0.1, l=[10, 20])", "NSTEP(k0=0.1, gamma=0.1, l=[10, 20])"),
        ("<=4000", "<=4000"),
        ("~ p=0.2", "~ p=0.2"),
        ("98.20 ± 0.10", "98.20 ± 0.10"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("`rm`", "\\`rm\\`"),
        ("_x_ **b** ~~s~~", "\\_x\\_ \\*\\*b\\*\\* \\~\\~s\\~\\~"),
        ("[a](http://b)", "[a\\](http://b)"),
        ("<script>", "&lt;script>"),
        ("&lt;", "&amp;lt;"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_markdown(text, expected):
    assert markdown(text) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_markdown_keeps_its_form(name):
    lines = markdown_table([["net", "Top-1"], [name, "1"]]).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith(" | 1 |")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.5", "-0.5"),
        ("-1e-05", "-1e-05"),
        ("+3", "+3"),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("\t=1", "'\\t=1"),
        ("\uff1d1", "'\uff1d1"),
        ("LeNet", "LeNet"),
    ],
)
def test_csv_has_no_formulas(text, expected):
    assert csv_cell(text) == expected


def test_csv_is_read_back_as_it_was_shown():
    rows = [["net", *NAMES], ["LeNet", *NAMES]]
    back = list(csv.reader(io.StringIO(csv_text(rows))))
    assert back == [["net", *map(one_line, NAMES)], ["LeNet", *map(one_line, NAMES)]]


def test_json_takes_numbers_of_json_alone_for_numbers():
    cells = ["1", "-0.5", "1e+100", "1e999", "1_000", "\uff11", "inf", "nan", "-", "007", "LeNet"]
    values = json.loads(json_text([list(map(str, range(len(cells)))), cells]))[0].values()
    assert list(values) == [
        1,
        -0.5,
        1e100,
        "1e999",
        "1_000",
        "\uff11",
        "inf",
        "nan",
        None,
        "007",
        "LeNet",
    ]


def measured(iteration: int, outputs: dict[str, float]) -> Measurement:
    return Measurement(
        iteration=iteration, lr=0.1, top1=50.0, top5=60.0, ac=0.5, cd=0.1, cdac=0.1, test_loss=1.0,
        train_loss=1.0, ld=0.0, seconds=1.0, samples=10, silent_classes=0, net=0, outputs=outputs,
    )  # fmt: skip


@pytest.mark.ci
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_any_name_can_be_drawn(tmp_path, suffix):
    """All of them in each place that has names: the title, a legend, an axis."""
    path = tmp_path / f"plot{suffix}"
    iterations = np.array([[i, 0.1, 1.0] for i in range(20)])
    title = "\n".join(NAMES)
    outputs = dict.fromkeys(NAMES, 3.0)
    tests = [
        measured(0, outputs),
        measured(10, {**outputs, **{f"{name}.top1": 3.0 for name in NAMES}}),
    ]
    one = Spread(1.0, 0.1)
    for figure in (
        runs_figure(title, [RunCurves(name, iterations, tests) for name in NAMES]),
        training_figure(title, iterations, tests, []),
        comparison_figure(title, [Pair(name, one, one, one, one) for name in NAMES]),
    ):
        save(figure, path)
        if suffix == ".svg":
            minidom.parse(str(path))


def test_a_legend_has_names_with_an_underscore(tmp_path):
    iterations = np.array([[i, 0.1, 1.0] for i in range(20)])
    path = tmp_path / "plot.svg"
    save(
        training_figure(
            "a$b$c", iterations, [measured(0, {"_mine": 3.0}), measured(5, {"_mine": 9.0})], []
        ),
        path,
    )
    text = path.read_text(encoding="utf-8")
    assert "<!--  _mine -->" in text  # matplotlib writes each text beside its glyphs
    assert "<!-- a$b$c -->" in text


def test_consoles_are_made_in_one_place():
    for module, path in SOURCES.items():
        if module != "lrbench_caffe.terminal.console":
            assert not {"rich.console", "rich.text", "rich.live", "rich.markup"} & imported(
                module
            ), module
            taken = [
                alias.name
                for node in ast.walk(read(path))
                if isinstance(node, ast.ImportFrom) and node.module == "rich.progress"
                for alias in node.names
            ]
            assert "TextColumn" not in taken, module
