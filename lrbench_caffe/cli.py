"""What all commands share: how they report an error and with which exit code they end."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.lr import PolicyError

INTERRUPTED = 130  # what a shell reports for a command ended by SIGINT


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line and whose options include --debug."""

    def __init__(self, **kwargs) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call a command's ``main`` and turn its outcome into an exit code.

    Errors meant for people become one line on stderr; with ``--debug`` the traceback as well.
    Bad input ends with 2, a failed training with 1, Ctrl-C with 130.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = main(arguments) or 0
        sys.stdout.flush()  # here, where a reader that is gone can still be seen
        return code
    except (LRBenchError, PolicyError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) is gone: nothing is wrong, nobody is listening. What is still
        # in the buffer must go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
