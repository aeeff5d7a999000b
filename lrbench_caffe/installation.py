"""How this program was installed and started, and therefore how its commands are called.

Standard library only, and cheap: messages all over the program name commands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCRIPT = "lrbench-caffe"
MODULE = "python -m lrbench_caffe."


def clone() -> Path | None:
    """Return the folder of the clone that contains this package, or None if it was installed."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "tools" / "setup").is_file() else None


def command(name: str) -> str:
    """Return what a person types for one of our commands, in the form in which this one was started.

    Args:
        name: the command, for example ``train``.
    """
    return as_started(f"{MODULE}{name}")


def as_started(text: str) -> str:
    """Return a text with the commands in it (``python -m lrbench_caffe.train``) as this one was started."""
    # ``lrbench-caffe train`` leaves its name in sys.argv[0]; see __main__.
    program = os.path.basename(sys.argv[0] if sys.argv else "")
    return text.replace(MODULE, f"{SCRIPT} ") if program.split(" ")[0] == SCRIPT else text


def setup_command() -> str:
    """Return the command that makes the Caffe runtime: ``tools/setup`` in a clone."""
    return "tools/setup" if clone() else command("setup")
