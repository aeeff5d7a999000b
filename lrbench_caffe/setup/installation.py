"""How this program was installed and started, and what its commands are therefore called.

Standard library only, and cheap: messages all over the program name commands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCRIPT = "lrbench-caffe"


def clone() -> Path | None:
    """Return the folder of the clone that this package lies in, or None where it was installed."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "tools" / "setup").is_file() else None


def command(name: str) -> str:
    """Return what a person types for one of our commands, in the form in which this one was started.

    Args:
        name: the command, for example ``train``.
    """
    # ``lrbench-caffe train`` leaves its name in sys.argv[0]; see __main__.
    started_by_script = os.path.basename(sys.argv[0] if sys.argv else "").split(" ")[0] == SCRIPT
    return f"{SCRIPT} {name}" if started_by_script else f"python -m lrbench_caffe.{name}"


def setup_command() -> str:
    """Return the command that makes the Caffe runtime: ``tools/setup`` in a clone."""
    return "tools/setup" if clone() else command("setup")
