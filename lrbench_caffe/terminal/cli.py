"""The common part of all commands: error messages, flags' names and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from lrbench_caffe import __version__
from lrbench_caffe.database.urls import scrub_text
from lrbench_caffe.errors import LRBenchError, spelling
from lrbench_caffe.installation import as_started
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.parameters import TERMINAL_NAMES
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.terminal.streams import escaping

INTERRUPTED = 130  # what a shell reports for a command ended by SIGINT
COMPLETING = (
    "_ARGCOMPLETE"  # the variable in which argcomplete's shell code counts the program's words
)


_NOT_BY_NAME = {
    "solver": "SOLVER",
    "solver_file": "--solver",
    "higher": "--higher or --lower",
}


def flag(parameter: str) -> str:
    """The flag of a parameter of the package's functions."""
    name = TERMINAL_NAMES.get(parameter, parameter)
    return _NOT_BY_NAME.get(parameter, "--" + name.replace("_", "-"))


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line usage errors, and what all commands have in common.

    All have --debug and --version, complete their arguments in a shell, and name commands in the
    form in which this one was started.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.prog = as_started(self.prog)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.add_argument("--version", action="version", version=__version__)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        if (
            COMPLETING in os.environ
        ):  # a shell asks what may follow; this answers and ends the process
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(args, namespace)

    def format_help(self) -> str:
        return as_started(super().format_help())

    def error(self, message: str) -> NoReturn:
        line = as_started(f"{self.prog}: error: {message} (see {self.prog} --help)")
        self.exit(2, one_line(scrub_text(line)) + "\n")


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call a command's ``main`` and turn its outcome into an exit code.

    Errors meant for people become one line on stderr; with ``--debug`` the traceback as well.
    Bad input ends with 2, a failed training or a file that cannot be read or written with 1, Ctrl-C
    with 130.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _ready_streams()
    with escaping(), spelling(flag):
        return _run(main, arguments)


def _run(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    try:
        code = _outcome(main, arguments)
    except SystemExit:  # argparse has printed the message
        if _flush_output():
            raise SystemExit(1) from None
        raise
    unwritten = _flush_output()  # whatever the code is: at Python's end it would be 120
    return code or unwritten


def _ready_streams() -> None:
    """Make sure that printing works, whatever the caller has done to our streams."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    # A locale without a character that is printed; stderr does without it anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _outcome(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    try:
        with _interruptible():
            return main(arguments) or 0
    except (LRBenchError, PolicyError) as error:
        _complain(f"error: {error}", arguments)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 0  # the reader of our output (head, less) is gone: this is not an error
    except OSError as error:
        if error.filename is None and _flush_output():
            return 1  # it was our output, which was reported
        reason = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(f"error: {where}{reason}", arguments)
        return 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt. Before and after, it ends a command at once (``__init__``).

    Where Python can raise nothing, in a callback of a weak reference for instance, it would print a
    traceback and drop the interrupt: it is repeated right after.
    """
    ends = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if not ends or threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = sys.unraisablehook

    def repeated(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Later, as nothing can be raised in here, either; to this thread, so that a sleep ends.
            timer = threading.Timer(
                0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)
            )
            timer.daemon = True
            timer.start()
        else:
            ignored(unraisable)

    sys.unraisablehook = repeated
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.unraisablehook = ignored


def _complain(line: str, arguments: Sequence[str] = ()) -> None:
    try:
        if "--debug" in arguments:
            print(scrub_text(traceback.format_exc()), end="", file=sys.stderr)
        print(one_line(scrub_text(as_started(line))), file=sys.stderr)
    except OSError:  # on a full disk, too; it cannot be reported
        _abandon(sys.stderr)


def _flush_output() -> int:
    """Write what is still in the buffer, here, where a failure can be told; returns 1 for one."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _abandon(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return 0
        _complain(f"error: standard output: {error.strerror}")
        return 1
    return 0


def _abandon(stream: TextIO) -> None:
    """Let what is still in the buffer go nowhere: else it fails once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
