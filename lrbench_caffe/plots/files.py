"""The file of a plot: its name, its format, and writing it."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import publish
from lrbench_caffe.plaintext import shortened, visible

SUFFIXES = (".png", ".pdf", ".svg")
DPI = 120
SHOWN_DPI = 80  # in a notebook
MOST_PIXELS = 2**16 - 1  # along an edge: matplotlib's limit
T = TypeVar("T")  # a figure; matplotlib is loaded only where something is drawn
LONGEST_LINE = 150  # characters of a title or an entry; longer ones leave no room for the drawing
LONGEST_POLICY = 80  # of these where an entry says more than the policy
LONGEST_ENTRY = 400  # characters of one that may have several lines
# Characters of a title that fit beside each other: over a drawing with a legend at its side, over a figure.
OVER_AXES, OVER_ALL = 70, 100
# Without the time of writing and random ids, so that equal plots are equal files.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def load() -> None:
    """Load the drawing library, with what it loads and prepares when it draws for the first time."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2], marker=".", label="0")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(io.BytesIO(), format="png", dpi=DPI)


@contextlib.contextmanager
def warm_up() -> Iterator[None]:
    """Load the drawing library in the background, while Caffe has the work: it takes about a second.

    The end waits for it, whatever that is: a thread that still loads C++ libraries when Python ends
    makes the process abort.
    """

    def load_library() -> None:
        from matplotlib.backends import backend_agg  # noqa: F401
        from matplotlib.figure import Figure  # noqa: F401

    thread = threading.Thread(target=load_library, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def plot_file(flag: str, name: str) -> Path:
    """The file of a plot that a user names; without a suffix it is a PNG.

    Raises:
        InputError: ``flag`` names a folder, a file in no folder, or a suffix that is not known.
    """
    path = Path(name)
    if path.is_dir() or name.endswith("/"):
        raise InputError(f"{flag}: {name} is a folder; allowed: the plot's file")
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{flag}: {name}: unknown suffix {path.suffix}; allowed: {', '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise InputError(f"{flag}: {name}: no such folder: {path.parent}")
    return path


def save(figure: Any, path: Path) -> None:
    """Write a matplotlib figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    publish(path, picture_bytes(figure, path.suffix.lower()))


def picture_bytes(figure: Any, suffix: str) -> bytes:
    """A matplotlib figure in a format of ``SUFFIXES``. Only one thread at a time may draw."""
    import matplotlib

    picture = io.BytesIO()
    plain(figure)
    dpi = min(DPI, MOST_PIXELS / max(figure.get_size_inches()))
    with matplotlib.rc_context({"svg.hashsalt": "lrbench"}), warnings.catch_warnings():
        # A name in a script that the font has not is drawn as boxes, and one that is too wide is
        # cut.
        warnings.filterwarnings(
            "ignore", "Glyph|constrained_layout|Matplotlib currently does not support"
        )
        figure.savefig(picture, format=suffix[1:], dpi=dpi, metadata=_METADATA.get(suffix))
    return picture.getvalue()


def plain(figure: T) -> T:
    """The figure with plain text: two "$" make no formula, and what no format can hold becomes an escape.

    Lines of one point, which would not be seen, are dots. A notebook shows the figure, also one that
    has not loaded pyplot.
    """
    for text in list(_texts(figure)):
        text.set_parse_math(False)
        text.set_text("\n".join(plain_label(line) for line in text.get_text().split("\n")))
    _dot_single_points(figure)
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)
    return figure


def _dot_single_points(figure: Any) -> None:
    import numpy as np

    for line in (line for axes in figure.axes for line in axes.lines):
        if np.isfinite(line.get_ydata(orig=False)).sum() == 1 and line.get_marker() in ("None", ""):
            line.set_marker(".")


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=SHOWN_DPI)
    return picture.getvalue()


def title_lines(title: str, most: int = OVER_AXES) -> str:
    """A title, its lines broken where they would run over the ends of what is below."""
    lines = (textwrap.wrap(plain_label(line), most) or [""] for line in title.split("\n"))
    return "\n".join(itertools.chain.from_iterable(lines))


def plain_label(text: str, most: int = LONGEST_LINE) -> str:
    """A name for a legend, which leaves out what begins with "_", or for the list beside an axis."""
    plain = shortened(visible(text), most)
    return f" {plain}" if plain.startswith("_") else plain


def policy_label(policy: str, more: str = "", most: int = LONGEST_POLICY) -> str:
    """A policy with what else an entry says of it, for which a long policy makes room."""
    return f"{shortened(visible(policy), most)}{more}"


def policy_lines(text: str) -> str:
    """A whole policy, in lines that fit below a drawing."""
    return "\n".join(textwrap.wrap(shortened(text, LONGEST_ENTRY), OVER_ALL))


def tick_label(text: str) -> str:
    """A name for an axis: ``save`` cannot tell it from a number, which may be a formula."""
    return plain_label(text).replace("$", r"\$").replace("\n", " ")


def _texts(artist: Any) -> Iterator[Any]:
    """All text in a figure but that at the ticks of its axes."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    if isinstance(artist, Text):
        yield artist
    children = [artist.label] if isinstance(artist, Axis) else artist.get_children()
    for child in children:
        yield from _texts(child)
