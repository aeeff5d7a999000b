"""The console script: ``lrbench-caffe COMMAND ...`` is ``python -m lrbench_caffe.COMMAND ...``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import lrbench_caffe
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.installation import SCRIPT
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.early import start_ahead

PACKAGE = Path(__file__).parent
SHELLS = ("bash", "zsh", "fish")
USAGE = f"""\
usage: {SCRIPT} COMMAND ...
       {SCRIPT} --completion {{{",".join(SHELLS)}}}    (prints completion code for the shell)
       {SCRIPT} --version"""


def commands() -> dict[str, str]:
    """All commands and their one-line help: the modules and packages that define a ``main``.

    They are read, not imported, so that this list is quick.
    """
    summaries = {}
    for module in pkgutil.iter_modules(lrbench_caffe.__path__):
        path = PACKAGE / (f"{module.name}/__main__.py" if module.ispkg else f"{module.name}.py")
        if module.name == "__main__" or not path.is_file():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            summaries[module.name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return summaries


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; without one, list them."""
    return cli.run(answer_shell if cli.COMPLETING in os.environ else dispatch, argv)


def answer_shell(_: Sequence[str]) -> int | None:
    """Tell a shell how the words that were typed may continue, and end the process.

    Once the command is among them, its own parser answers.
    """
    typed = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    *words, _ = f"{typed}_".split()  # the last one is still being typed
    known = commands()
    if len(words) > 1 and words[1] in known:
        os.environ[cli.COMPLETING] = (
            "2"  # the command takes the program's place, at the second word
        )
        return dispatch([words[1]])
    parser = cli.Parser()
    parser.add_argument("command", choices=list(known))
    parser.add_argument("--completion", choices=SHELLS)
    parser.parse_args([])
    return None


def dispatch(arguments: Sequence[str]) -> int | None:
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{SCRIPT} {lrbench_caffe.__version__}\n\n{USAGE}\n\ncommands:")
        for name, help_text in known.items():
            print(f"  {name:<12} {help_text}")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(lrbench_caffe.__version__)
        return 0
    if arguments[0] == "--completion":
        print(completion_code(arguments[1:]))
        return 0
    if arguments[0] not in known:
        print(
            f"error: unknown command {arguments[0]!r}; known: {', '.join(known)}", file=sys.stderr
        )
        return 2
    ahead = start_ahead(arguments[1:]) if arguments[0] == "train" else None
    package = importlib.util.find_spec(f"lrbench_caffe.{arguments[0]}")
    suffix = ".__main__" if package and package.submodule_search_locations else ""
    command = importlib.import_module(f"lrbench_caffe.{arguments[0]}{suffix}").main
    program = sys.argv[0]
    sys.argv[0] = f"{SCRIPT} {arguments[0]}"  # see installation.as_started
    try:
        result: int | None = command(arguments[1:], *([ahead] if ahead else []))
    finally:
        sys.argv[0] = program
        if ahead:
            ahead.close()
    return result


def completion_code(shells: Sequence[str]) -> str:
    """Return what a shell has to run so that it completes our arguments.

    Args:
        shells: its name.

    Raises:
        InputError: it is none that is known, or not one.
        LRBenchError: a package is missing.
    """
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise InputError(
            f"--completion: {' '.join(shells) or 'nothing'}; allowed: {', '.join(SHELLS)}"
        )
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise LRBenchError("completion needs argcomplete: pip install argcomplete") from None
    code: str = shellcode([SCRIPT], shell=shells[0])
    return code


if __name__ == "__main__":
    sys.exit(main())
