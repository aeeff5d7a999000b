"""README.md is true: its commands parse, its links resolve, its table is the module's, its Python runs."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from lrbench_caffe.lr import PAPER_FUNCTIONS, describe_functions, parse

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE = re.compile(r"python -m (lrbench_caffe\.\w+)(.*)")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


def our_commands() -> list[tuple[str, str]]:
    found = [MODULE.search(command) for command in commands()]
    return [(match.group(1), match.group(2)) for match in found if match]


def test_there_are_commands_to_check():
    assert {module for module, _ in our_commands()} >= {
        "lrbench_caffe.train",
        "lrbench_caffe.data",
        "lrbench_caffe.doctor",
    }


@pytest.mark.parametrize(("module", "arguments"), our_commands())
def test_every_command_parses(module: str, arguments: str):
    found = importlib.import_module(module)
    if not hasattr(found, "main"):
        found = importlib.import_module(f"{module}.__main__")
    args = found.parser().parse_args(shlex.split(arguments, comments=True))
    solver = getattr(args, "solver_file", None)
    assert solver is None or (ROOT / solver).is_file()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("tools/")])
def test_every_tool_exists(command: str):
    path = ROOT / command.split()[0]
    assert path.is_file() and path.stat().st_mode & 0o100


@pytest.mark.parametrize(
    "policy", re.findall(r'--lr "([^"]+)"', README) + re.findall(r"`(FIX\([^`]+)`", README)
)
def test_every_policy_is_one(policy: str):
    assert parse(str(parse(policy))) == parse(policy)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#h][^)]*)\)", README))
def test_every_link_resolves(target: str):
    assert (ROOT / target).exists()


@pytest.mark.parametrize(
    "path", re.findall(r"^\| `((?:lrbench_caffe|solvers|prototxt|tools)/[\w/]*)`", README, re.M)
)
def test_every_folder_exists(path: str):
    assert (ROOT / path).is_dir()


def test_the_function_table_is_the_modules():
    rows = [row for row in describe_functions() if row.name in PAPER_FUNCTIONS]
    assert len(rows) == 13
    for row in rows:
        cells = (row.name, row.equation, row.parameters, row.num_params, row.meaning)
        assert f"| {' | '.join(cells)} |" in README


def test_the_other_functions_are_all_named():
    for row in describe_functions():
        assert re.search(rf"\b{row.name}\b", README), row.name


def test_the_python_example_gives_what_its_comments_say():
    for block in blocks("python"):
        names: dict[str, object] = {}
        for line in block.splitlines():
            code, _, expected = line.partition("  # ")
            if not expected:
                exec(code, names)
                continue
            checker = doctest.OutputChecker()
            got = repr(eval(code, names))
            assert checker.check_output(expected, got, doctest.NORMALIZE_WHITESPACE), (code, got)
