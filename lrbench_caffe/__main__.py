"""The console script: ``lrbench-caffe COMMAND ...`` is ``python -m lrbench_caffe.COMMAND ...``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence

import lrbench_caffe
from lrbench_caffe import cli


def commands() -> dict[str, str]:
    """All commands and their one-line help: the modules and packages that define a ``main``.

    They are read, not imported, so that this list is quick.
    """
    found = {}
    for module in pkgutil.iter_modules(lrbench_caffe.__path__):
        name = f"lrbench_caffe.{module.name}" + (".__main__" if module.ispkg else "")
        spec = importlib.util.find_spec(name) if module.name != "__main__" else None
        if spec is None or spec.origin is None:
            continue
        with open(spec.origin, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[module.name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; without one, list them."""
    return cli.run(dispatch, argv)


def dispatch(arguments: Sequence[str]) -> int | None:
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"lrbench-caffe {lrbench_caffe.__version__}\n\nusage: lrbench-caffe COMMAND ...\n\ncommands:")
        for name, help_text in known.items():
            print(f"  {name:<12} {help_text}")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(lrbench_caffe.__version__)
        return 0
    if arguments[0] not in known:
        print(f"error: unknown command {arguments[0]!r}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    package = importlib.util.find_spec(f"lrbench_caffe.{arguments[0]}")
    suffix = ".__main__" if package and package.submodule_search_locations else ""
    command = importlib.import_module(f"lrbench_caffe.{arguments[0]}{suffix}").main
    sys.argv[0] = f"lrbench-caffe {arguments[0]}"
    result: int | None = command(arguments[1:])
    return result


if __name__ == "__main__":
    sys.exit(main())
