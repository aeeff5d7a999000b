"""The file of a plot: its name, its format, and writing it."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import replace_own

SUFFIXES = (".png", ".pdf", ".svg")
DPI = 120
# Without the time of writing and random ids, so that equal plots are equal files.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


@contextlib.contextmanager
def warm_up() -> Iterator[None]:
    """Load the drawing library in the background, while Caffe has the work: it takes about a second.

    The end waits for it, whatever that is: a thread that still loads C++ libraries when Python ends makes
    the process abort.
    """

    def load() -> None:
        from matplotlib.backends import backend_agg  # noqa: F401
        from matplotlib.figure import Figure  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
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
        raise InputError(f"{flag}: {name}: unknown suffix {path.suffix}; allowed: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{flag}: {name}: no such folder: {path.parent}")
    return path


def save(figure: Any, path: Path) -> None:
    """Write a matplotlib figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib

    picture, suffix = io.BytesIO(), path.suffix.lower()
    with matplotlib.rc_context({"svg.hashsalt": "lrbench"}):
        figure.savefig(picture, format=suffix[1:], dpi=DPI, metadata=_METADATA.get(suffix))
    if path.exists() and (path.is_symlink() or not path.is_file()):  # as the user wants it: a device, a link
        path.write_bytes(picture.getvalue())
    else:
        replace_own(path, picture.getvalue())
