"""Tables that fit the terminal: fewer columns, never cut numbers. A pipe or file gets all of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.table import Table

from lrbench_caffe.errors import InputError, did_you_mean
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.tabular import Rows
from lrbench_caffe.terminal.console import Console

ALL = "all"
BROKEN_TEXT = 26  # characters that a column of text keeps when its lines are broken
PADDING = 3  # characters between two columns
EDGES = 1  # characters more beside the outer ones


@dataclass(frozen=True)
class Layout:
    """How a table is made to fit.

    Attributes:
        names: the columns' names, as --columns takes them.
        order: the most important names first; those that are not here follow as they stand.
        text: columns whose text may be broken between words.
        words: further columns that are set to the left, as text is; numbers are set to the right.
        common: columns that are told in a line below the table where all rows agree.
    """

    names: Sequence[str]
    order: Sequence[str] = ()
    text: Sequence[str] = ("policy",)
    words: Sequence[str] = ()
    common: Sequence[str] = ()

    @property
    def by_importance(self) -> list[int]:
        first = [self.names.index(name) for name in self.order if name in self.names]
        return first + [i for i in range(len(self.names)) if i not in first]


def add_flag(p: argparse._ActionsContainer) -> None:
    """The flag --columns."""
    p.add_argument(
        "--columns", metavar="NAMES",
        help=f"comma-separated columns, or {ALL} (default: those that fit the terminal; {ALL} in a pipe)",
    )  # fmt: skip


def print_table(
    rows: Rows,
    layout: Layout,
    *,
    title: str | None = None,
    columns: str | None = None,
    notes: Sequence[str] = (),
    file: TextIO | None = None,
) -> None:
    """Print rows, the first one the heading.

    Args:
        columns: the value of --columns.
        notes: lines below the table.
        file: where to, by default the standard output.

    Raises:
        InputError: a column that is not there.
    """
    console = Console(file)
    title = None if title is None else one_line(title)
    missing: list[str] = []
    if columns is not None:
        kept = list(range(len(layout.names))) if columns == ALL else chosen(columns, layout)
    elif console.is_terminal:
        kept, missing = fitting(rows, layout, console.width)
    else:
        kept = list(range(len(layout.names)))
    shown = [[row[i] for i in kept] for row in rows]
    left = [layout.names[i] in (*layout.text, *layout.words) for i in kept]
    if columns is not None or not console.is_terminal:
        console.width = max(table_width(shown), cells(title or ""), console.width)
    else:
        needed = sum(_least(rows, i, layout) + PADDING for i in kept) + EDGES
        console.width = max(
            needed, console.width
        )  # a terminal that is too narrow breaks lines by itself
    least = [_least(rows, i, layout) if layout.names[i] in layout.text else None for i in kept]
    console.print(terminal_table(shown, title, left, least), markup=False)
    for note in map(one_line, (*notes, *missing)):
        console.print(note, highlight=False, markup=False)


def chosen(columns: str, layout: Layout) -> list[int]:
    """The columns that --columns names, in its order."""
    names = [name.strip().lower() for name in columns.split(",") if name.strip()]
    for name in names:
        if name not in layout.names:
            hint = did_you_mean(name, layout.names) or ";"
            raise InputError(
                f"--columns: unknown column {name!r}{hint} known: {', '.join(layout.names)}"
            )
    if not names:
        raise InputError(f"--columns: {columns!r}; allowed: {ALL}, or of {', '.join(layout.names)}")
    return [layout.names.index(name) for name in dict.fromkeys(names)]


def fitting(rows: Rows, layout: Layout, width: int) -> tuple[list[int], list[str]]:
    """The most important columns that a terminal has room for, and notes about the others."""
    common = [i for i, name in enumerate(layout.names) if name in layout.common and _agree(rows, i)]
    kept: list[int] = []
    room = width - EDGES
    for i in layout.by_importance:
        if i in common:
            continue
        room -= _least(rows, i, layout) + PADDING
        if room < 0 and kept:
            break
        kept.append(i)
    left_out = [name for i, name in enumerate(layout.names) if i not in kept and i not in common]
    notes = []
    if common:
        notes.append("all: " + ", ".join(f"{layout.names[i]} {rows[1][i]}" for i in common))
    if left_out:
        notes.append(f"no room for {', '.join(left_out)} (--columns)")
    return sorted(kept), notes


def _agree(rows: Rows, column: int) -> bool:
    return len(rows) > 1 and len({row[column] for row in rows[1:]}) == 1


def _least(rows: Rows, column: int, layout: Layout) -> int:
    """Characters that a column needs."""
    whole = max(cells(row[column]) for row in rows)
    if layout.names[column] not in layout.text:
        return whole
    longest_word = max((cells(word) for row in rows for word in row[column].split()), default=0)
    return min(whole, max(BROKEN_TEXT, longest_word))


def terminal_table(
    rows: Rows,
    title: str | None = None,
    left: int | Sequence[bool] = 1,
    least: Sequence[int | None] | None = None,
) -> Table:
    """Rows, the first one the heading, as a table for the terminal.

    Args:
        left: how many of the first columns are set to the left, or for each whether it is; the
            others, which are numbers, are set to the right.
        least: for each column the characters that it keeps where its lines are broken to fit, None
            where they never are. By default all but the first column may be broken.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, heading in enumerate(rows[0]):
        whole = index == 0 if least is None else least[index] is None
        to_the_left = index < left if isinstance(left, int) else left[index]
        table.add_column(
            one_line(heading),
            justify="left" if to_the_left else "right",
            no_wrap=whole,
            min_width=None if least is None else least[index],
        )
    for row in rows[1:]:
        table.add_row(*map(one_line, row))
    return table


def table_width(rows: Rows) -> int:
    """Columns of a terminal that a table needs unwrapped: wrapped numbers cannot be read."""
    return sum(max(cells(row[i]) for row in rows) + 3 for i in range(len(rows[0]))) + 2


def cells(text: str) -> int:
    """Columns of a terminal that a text takes in a table."""
    return cell_len(one_line(text))
