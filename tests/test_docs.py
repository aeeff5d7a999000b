"""README.md and docs/ are true: commands parse and run, links resolve, tables are the modules'."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.lr import describe_functions, parse
from lrbench_caffe.metrics import METRICS, OF_SCORES
from lrbench_caffe.terminal import cli
from lrbench_caffe.tuning.verdict import KEEP_OWN

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
COMMAND = re.compile(r"(?:python -m lrbench_caffe\.|^lrbench-caffe )(\w+)(.*)")
FUNCTIONS = TEXTS["lr-functions.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[page], re.DOTALL)


def commands(page: str, *languages: str) -> list[str]:
    lines = [
        line
        for language in languages
        for block in blocks(page, language)
        for line in block.splitlines()
    ]
    return [part.strip() for line in lines for part in line.split("&&")]


def ours(page: str, *languages: str) -> list[tuple[str, list[str]]]:
    """Module and arguments of each command that is one of ours."""
    found = [COMMAND.search(command) for command in commands(page, *languages)]
    return [
        (f"lrbench_caffe.{match.group(1)}", shlex.split(match.group(2), comments=True))
        for match in found
        if match
    ]


def of_all_pages(*languages: str) -> list[tuple[str, str, list[str]]]:
    return [(page, *command) for page in TEXTS for command in ours(page, *languages)]


def named(case: object) -> str:
    return " ".join(case) if isinstance(case, list) else str(case).replace("lrbench_caffe.", "")


def command_module(module: str):
    found = importlib.import_module(module)
    return found if hasattr(found, "main") else importlib.import_module(f"{module}.__main__")


# -- commands --------------------------------------------------------------------------------------


def test_there_are_commands_to_check():
    assert {module for module, _ in ours("README.md", "sh", "shell")} >= {
        "lrbench_caffe.train",
        "lrbench_caffe.data",
        "lrbench_caffe.doctor",
    }
    assert len(of_all_pages("sh")) > 30


@pytest.mark.parametrize(("page", "module", "arguments"), of_all_pages("sh", "shell"), ids=named)
def test_every_command_parses(page: str, module: str, arguments: list[str]):
    command_module(module).parser().parse_args(arguments)


@pytest.mark.parametrize(("page", "module", "arguments"), of_all_pages("sh"), ids=named)
def test_every_solver_is_there(page: str, module: str, arguments: list[str]):
    for argument in arguments:
        assert not argument.endswith("_solver.prototxt") or (ROOT / argument).is_file()


@pytest.mark.parametrize(
    "command",
    [c for page in TEXTS for c in commands(page, "sh", "shell") if re.match(r"\.?(tools|ci)/", c)],
)
def test_every_tool_exists(command: str):
    path = ROOT / command.split()[0]
    assert path.is_file() and path.stat().st_mode & 0o100


def needs_no_training(module: str, arguments: list[str]) -> bool:
    """Commands that read the LR database with the paper's results, or only draw: they take a moment."""
    name = module.rpartition(".")[2]
    first = arguments[0] if arguments else ""
    return (
        (name == "rank" and (not arguments or "--task" in arguments))
        or (
            name == "plot" and (first == "schedule" or (first == "table" and "--task" in arguments))
        )
        or (name == "db" and first in ("info", "tasks", "runs", "export", "import", "backup"))
        or (name == "reproduce" and "--dry-run" in arguments)
    )


@pytest.mark.parametrize("page", TEXTS)
def test_commands_without_a_training_run(page: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRBENCH_DB", str(tmp_path / "lr.sqlite"))
    for module, arguments in ours(page, "sh"):
        if needs_no_training(module, arguments):
            assert cli.run(command_module(module).main, arguments) == 0, (module, arguments)


def run(folder: Path, module: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LRBENCH_DB": str(folder / "lr.sqlite"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def workspace(tmp_path, caffe_info) -> Path:
    """A folder like a fresh clone, with the digits made."""
    for name in ("solvers", "prototxt"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = run(tmp_path, "lrbench_caffe.data", ["digits"])
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [page for page in TEXTS if ours(page, "sh")])
def test_all_commands_run_one_after_the_other(page: str, workspace: Path):
    for module, arguments in ours(page, "sh"):
        done = run(workspace, module, arguments)
        # A tuning says by its exit code whether it recommends a policy.
        allowed = (0, KEEP_OWN) if module == "lrbench_caffe.tune" else (0,)
        assert done.returncode in allowed, (module, arguments, done.stdout, done.stderr)


# -- Python ----------------------------------------------------------------------------------------


API_PAGE = "python.md"  # whose examples train, one after the other
ELSEWHERE = ("torch", "keras")  # frameworks that this package does without


def check_example(block: str, names: dict[str, object]) -> None:
    """Run an example; a comment behind an expression is its value."""
    for statement in ast.parse(block).body:
        code = ast.get_source_segment(block, statement) or ""
        line = block.splitlines()[(statement.end_lineno or 1) - 1]
        expected = line[statement.end_col_offset or 0 :].partition("  # ")[2]
        if not isinstance(statement, ast.Expr) or not expected:
            exec(code, names)
            continue
        got = repr(eval(code, names))
        checker = doctest.OutputChecker()
        assert checker.check_output(expected, got, doctest.NORMALIZE_WHITESPACE), (code, got)


@pytest.mark.parametrize(
    "page", [page for page in TEXTS if blocks(page, "python") and page != API_PAGE]
)
def test_python_examples_give_what_their_comments_say(page: str):
    for block in blocks(page, "python"):
        check_example(block, {})


@pytest.mark.ci
def test_the_examples_of_the_python_api(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("LRBENCH_DB", str(workspace / "lr.sqlite"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    names: dict[str, object] = {}
    for block in blocks(API_PAGE, "python"):
        if not block.startswith(tuple(f"import {name}" for name in ELSEWHERE)):
            check_example(block, names)


@pytest.mark.parametrize("framework", ELSEWHERE)
def test_the_examples_with_other_frameworks(framework: str):
    pytest.importorskip(framework)
    (block,) = [
        block for block in blocks(API_PAGE, "python") if block.startswith(f"import {framework}")
    ]
    check_example(block, {})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(workspace: Path):
    pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LRBENCH_DB": str(workspace / "lr.sqlite"),
    }
    notebook = workspace / "python.ipynb"
    notebook.write_bytes((ROOT / "docs" / "python.ipynb").read_bytes())
    done = subprocess.run(
        [*command, notebook.name], cwd=workspace, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"image/png":') == 1 and done.stdout.count("data:image/png") == 2


# -- links and names -------------------------------------------------------------------------------


def links() -> list[tuple[Path, str]]:
    found = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page.name])
    ]
    return [(page, target) for page, target in found if not target.startswith("http")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda case: getattr(case, "name", case))
def test_every_link_resolves(page: Path, target: str):
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    assert path.exists()
    assert not anchor or anchor in anchors(path)


def test_every_page_can_be_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached and page in PAGES:
            reached.add(page)
            todo += [(page.parent / t.partition("#")[0]).resolve() for p, t in links() if p == page]
    assert reached == set(PAGES)


@pytest.mark.parametrize(
    "path",
    re.findall(
        r"^\| `((?:lrbench_caffe|solvers|prototxt|tools)/[\w/]*)`", TEXTS["architecture.md"], re.M
    ),
)
def test_every_folder_exists(path: str):
    assert (ROOT / path).is_dir()


def test_every_file_that_the_architecture_names_exists():
    named = set(re.findall(r"`([\w/]+\.py)`", TEXTS["architecture.md"]))
    there = [str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*.py")]
    assert len(named) > 40
    assert {
        name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)
    } == set()


def test_every_package_is_in_the_table_of_folders():
    for package in (ROOT / "lrbench_caffe").glob("*/__init__.py"):
        assert f"| `lrbench_caffe/{package.parent.name}/` |" in TEXTS["architecture.md"]


# -- policies and functions ------------------------------------------------------------------------


def policies() -> list[str]:
    arguments = [argument for _, _, found in of_all_pages("sh", "shell") for argument in found]
    return [a for a in arguments if re.match(r"[A-Z]\w+\(", a)] + re.findall(
        r"`(FIX\([^`]+)`", FUNCTIONS
    )


@pytest.mark.parametrize("policy", policies())
def test_every_policy_is_one(policy: str):
    assert parse(str(parse(policy))) == parse(policy)


def test_the_function_table_is_the_modules():
    for row in describe_functions():
        cells = (row.name, row.equation, row.parameters, row.num_params, row.meaning)
        assert f"| {' | '.join(cells)} |" in FUNCTIONS


def test_the_readme_counts_the_functions():
    assert f"[{len(list(describe_functions()))} LR functions]" in TEXTS["README.md"]


def test_every_metric_and_criterion_is_explained():
    counted = [METRICS[name].title for name in OF_SCORES]
    for metric in (*counted, "LD", "#Iterations", "#Param"):
        assert f"| {metric} |" in TEXTS["metrics.md"]
    for criterion in CRITERIA:
        assert re.search(rf"^\| .*`{criterion}`.* \|", TEXTS["ranking.md"], re.M)
