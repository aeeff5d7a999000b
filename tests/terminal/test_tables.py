"""Tables in a terminal: what fits, and that numbers are never cut."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.terminal.tables import Layout, chosen, fitting

ROWS = [
    ["#", "policy", "Top-1 (%)", "LD", "source"],
    ["1", "SINEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)", "92.81 ± 0.10", "0.1234", "paper"],
    ["2", "FIX(k0=0.1)", "91.00 ± 0.20", "0.2345", "paper"],
]
LAYOUT = Layout(("place", "policy", "top1", "ld", "source"), order=("place", "policy", "top1"))


@pytest.mark.parametrize(
    ("width", "names"),
    [
        # 1 + 3, 26 (broken; 48 whole) + 3, 12 + 3, 6 + 3, 6 + 3, and 1 at the edges: 67
        (67, ["place", "policy", "top1", "ld", "source"]),
        (66, ["place", "policy", "top1", "ld"]),
        (58, ["place", "policy", "top1", "ld"]),
        (57, ["place", "policy", "top1"]),
        (48, ["place", "policy"]),
        (3, ["place"]),
    ],
)
def test_the_most_important_columns_that_fit(width, names):
    kept, notes = fitting(ROWS, LAYOUT, width)
    assert [LAYOUT.names[i] for i in kept] == names
    missing = [name for name in LAYOUT.names if name not in names]
    assert notes == ([f"no room for {', '.join(missing)} (--columns)"] if missing else [])


def test_what_all_rows_agree_in_is_said_once():
    layout = Layout(LAYOUT.names, common=("source", "top1"))
    kept, notes = fitting(ROWS, layout, 100)
    assert [layout.names[i] for i in kept] == ["place", "policy", "top1", "ld"]
    assert notes == ["all: source paper"]


def test_columns_by_name():
    assert chosen("ld, Policy,ld", LAYOUT) == [3, 1]
    with pytest.raises(
        InputError, match=r"--columns: unknown column 'pollicy'; did you mean 'policy'\? known"
    ):
        chosen("pollicy", LAYOUT)
    with pytest.raises(InputError, match="--columns: ','; allowed: all, or of place"):
        chosen(",", LAYOUT)


def in_terminal(columns: int, *command: str) -> list[str]:
    """The lines that a command writes to a terminal of this many columns."""
    main, side = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    shell = f'stty cols {columns} && exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-m", *command],
        stdin=side, stdout=side, stderr=side, env={**environment, "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(side)
    parts = []
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    assert process.wait() == 0, parts
    return b"".join(parts).decode().splitlines()


@pytest.mark.parametrize(
    "command",
    [
        ("db", "tasks"),
        ("db", "runs", "--limit", "60"),
        ("rank",),
        ("rank", "--task", "cnn3", "--top", "0"),
    ],
)
def test_eighty_columns(command, tmp_path: Path):
    name, *args = command
    path = str(tmp_path / "lr.sqlite")
    Database.open(path).close()
    database = ("--db", path)
    lines = in_terminal(80, f"lrbench_caffe.{name}", *args, *database)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    piped = subprocess.run(
        [sys.executable, "-m", f"lrbench_caffe.{name}", *args, *database],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert ("no room for" not in piped and max(map(len, piped.splitlines())) > 80) or command == (
        "rank",
    )
