"""The example set-ups: solvers and their nets, in a clone or in the installed package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import replace_by

FOLDERS = ("prototxt", "solvers")


def source() -> Path:
    """Return the folder that holds ``solvers/`` and ``prototxt/``."""
    return installation.clone() or Path(__file__).resolve().parents[1] / "examples"


def all_names() -> list[Path]:
    """Return the files of all set-ups, relative to the folder that they are written to."""
    root = source()
    paths = [path for folder in FOLDERS for path in sorted((root / folder).glob("*.prototxt"))]
    return [path.relative_to(root) for path in paths]


def command_for(path: Path) -> str | None:
    """Return the command that writes a file, or None if it is not an example.

    >>> command_for(Path("solvers/lenet_digits_solver.prototxt"))
    'python -m lrbench_caffe.init .'
    """
    return f"{installation.command('init')} ." if path in all_names() else None


def names_of(key: str) -> list[Path]:
    """Return the net and the solver of a set-up, for example of ``lenet_digits``."""
    return [Path(f"prototxt/{key}_train_test.prototxt"), Path(f"solvers/{key}_solver.prototxt")]


def differing(target: Path, names: Iterable[Path]) -> list[Path]:
    """Return the files in the folder ``target`` whose content differs from the examples.

    Raises:
        InputError: something in place of one is not a file, or cannot be read.
    """
    root = source()
    return [
        name for name in names if _content(target / name) not in (None, (root / name).read_bytes())
    ]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def write(target: Path, names: Iterable[Path]) -> list[Path]:
    """Write set-ups into a folder, nets first: a solver that is there has its net.

    Args:
        target: the folder; it is made where it is missing.
        names: which files.

    Returns:
        those that were not there with the same content.

    Raises:
        InputError: one cannot be written.
    """
    root = source()
    written = []
    for name in names:
        content = (root / name).read_bytes()
        if _content(target / name) == content:
            continue
        try:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            replace_by(target / name, _writer(content))
        except OSError as error:
            raise InputError(f"cannot write {target / name}: {error.strerror}") from error
        written.append(name)
    return written


def _writer(content: bytes) -> Callable[[Path], int]:
    return lambda path: path.write_bytes(content)
