"""Which module may import what: the dependency direction, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lrbench_caffe
from lrbench_caffe.metrics import METRICS

PACKAGE = Path(lrbench_caffe.__file__).parent
ROOT = PACKAGE.parent
NAME = "lrbench_caffe"
WORKER = f"{NAME}.runtime.worker"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imported(name: str) -> set[str]:
    """Full names of all that a module imports, anywhere in it; a name out of a package counts as a module
    if it is one."""
    path = SOURCES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(read(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(
                    [*parents[: len(parents) - node.level + 1], *([base] if base else [])]
                )
            names = {f"{base}.{alias.name}" for alias in node.names}
            found.update({n for n in names if n in SOURCES} or {base})
    return found


@cache
def reached(name: str) -> set[str]:
    """A module and all of ours that it leads to."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += [other for other in imported(current) if other in SOURCES]
    return seen


def of_package(*names: str) -> list[str]:
    return [
        module
        for module in SOURCES
        if any(f"{module}.".startswith(f"{NAME}.{name}.") for name in names)
    ]


def top(module: str) -> str:
    return module.partition(".")[0]


def test_the_reader_sees_imports():
    assert {"numpy", f"{NAME}.metrics"} <= imported(f"{NAME}.plots.training")
    assert f"{NAME}.lr.parameters" in imported(
        f"{NAME}.lr.policy"
    )  # from . import parameters as par
    assert f"{NAME}.lr.errors" in imported(f"{NAME}.lr")  # from .errors import PolicyError
    assert "matplotlib.figure" in imported(f"{NAME}.plots.training")  # inside functions
    assert f"{NAME}.prototxt.sources" in reached(f"{NAME}.train")


@pytest.mark.parametrize("module", SOURCES)
def test_caffe_is_imported_by_the_worker_alone(module):
    assert ("caffe" in map(top, imported(module))) == (module == WORKER)


def test_the_worker_needs_caffe_and_numpy_alone():
    # Counting.py and forking.py lie beside it.
    assert set(map(top, imported(WORKER))) <= {
        *sys.stdlib_module_names,
        "caffe",
        "numpy",
        "counting",
        "forking",
    }
    assert set(map(top, imported(f"{NAME}.runtime.forking"))) <= set(sys.stdlib_module_names)
    assert imported(f"{NAME}.runtime.counting") == {"__future__", "numpy"}


def test_lr_module_needs_numpy_alone():
    modules = of_package("lr")
    assert modules
    for module in modules:
        for name in imported(module):
            ours = f"{name}.".startswith(f"{NAME}.lr.")
            assert ours or top(name) in {*sys.stdlib_module_names, "numpy"}, (module, name)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("datasets", ["training", "prototxt", "runtime", "train"]),
        ("prototxt", ["training", "train", "plots"]),
        ("metrics", ["runtime", "training", "prototxt", "datasets", "train"]),
        ("runtime", ["training", "prototxt", "train"]),
        ("training", ["train", "plots"]),
        ("native", ["training", "prototxt", "train", "datasets"]),
        ("errors", ["runtime", "training", "prototxt", "datasets", "lr", "metrics"]),
        ("tabular", ["runtime", "training", "prototxt", "train"]),
        ("plots", ["runtime", "training", "train", "reproduction"]),
        ("reproduction.compare", ["runtime", "training", "prototxt", "train", "plots"]),
        ("reproduction.figures", ["runtime", "training", "prototxt", "train"]),
        ("reproduction", ["tuning"]),
        ("tuning", ["reproduction"]),
        ("jobs", ["tuning", "reproduction"]),
        ("training", ["jobs", "tuning", "reproduction"]),
        ("runs", ["training", "jobs", "tuning", "reproduction", "knowledge"]),
        ("importing", ["training", "jobs", "tuning", "reproduction", "knowledge"]),
        ("knowledge", ["training", "runs", "jobs", "tuning", "reproduction"]),
        (
            "paper",
            ["database", "runtime", "prototxt", "training", "runs", "knowledge", "reproduction"],
        ),
        (
            "database",
            [
                "runtime",
                "prototxt",
                "training",
                "runs",
                "importing",
                "knowledge",
                "jobs",
                "tuning",
                "reproduction",
            ],
        ),
    ],
)
def test_direction(package, forbidden):
    modules = of_package(package)
    assert modules
    for module in modules:
        wrong = reached(module) & set(of_package(*forbidden))
        assert not wrong, (module, wrong)


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(top(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(top(node.module or ""))
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_matplotlib_is_imported_where_something_is_drawn(module):
    body = [node for node in read(SOURCES[module]).body if not is_for_types(node)]
    everywhere = imports_of(part for node in body for part in ast.walk(node))
    assert "matplotlib" not in everywhere or module in of_package("plots")
    outside = [
        part
        for node in body
        if not isinstance(node, ast.FunctionDef)
        for part in [node, *getattr(node, "body", [])]
    ]
    assert "matplotlib" not in imports_of(outside)  # only inside functions


def test_no_two_classes_have_one_name():
    """A class's name explains itself without its module."""
    names = [
        node.name.lstrip("_")
        for path in SOURCES.values()
        for node in read(path).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(names) > 100
    assert {name for name in names if names.count(name) > 1} == set()


def metrics_in(node: ast.AST) -> set[str]:
    """The names of metrics in a list, a tuple, a set, or the keys of a dictionary."""
    if isinstance(node, ast.Dict):
        parts = [key for key in node.keys if key is not None]
    else:
        parts = node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else []
    return {part.value for part in parts if isinstance(part, ast.Constant)} & {*METRICS}


def test_the_metrics_are_listed_in_one_place():
    """All else reads ``metrics.METRICS``; the paper's tables and released migrations stay as they are."""
    listing = {
        module
        for module, path in SOURCES.items()
        if any(len(metrics_in(node)) > 3 for node in ast.walk(read(path)))
    }
    migrations = set(of_package("database.migrations"))
    assert listing - migrations == {f"{NAME}.reproduction.results"}


GROUND_WORDS = {
    "errors",
    "files",
    "installation",
    "metrics",
    "parameters",
    "plaintext",
    "progress",
    "records",
    "tabular",
}


def is_command(module: str) -> bool:
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "main"
        for node in read(SOURCES[module]).body
    )


def test_what_lies_at_the_top():
    """The commands, the Python API, and the ground words; every other noun is a package."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    commands = {name for name in modules if is_command(f"{NAME}.{name}")}
    assert modules - commands == {"api", *GROUND_WORDS}


# Modules of packages that are started as processes, and so are commands, too.
PROGRAMS = {
    "jobs.__main__": "the command train, for a process that starts it",
    "setup.__main__": "the command setup",
    "web.__main__": "the command web",
}


def is_above(module: str) -> bool:
    """Whether a module may stand on the terminal: a command, or a program of a package."""
    name = module.removeprefix(f"{NAME}.")
    return name in PROGRAMS or name == "__main__" or ("." not in name and is_command(module))


@pytest.mark.parametrize("module", SOURCES)
def test_what_a_person_types_and_sees_is_in_the_terminal(module):
    ours = module in of_package("terminal") or is_above(module)
    assert ours or not {"argparse", "rich", "IPython"} & set(map(top, imported(module)))


@pytest.mark.parametrize("module", SOURCES)
def test_the_commands_alone_stand_on_the_terminal(module):
    """What the packages have to say they tell an observer, a Progress or a function."""
    used = imported(module) & set(of_package("terminal"))
    if module == f"{NAME}.api":  # in a notebook, where it is loaded
        assert used == {f"{NAME}.terminal.notebook"}
    else:
        assert not used or module in of_package("terminal") or is_above(module)


# Lines for whoever reads the output of a process that is no command of a terminal.
PRINTING = {
    "jobs.child": "the log of a cluster's worker",
    "setup.processes": "tools/setup, which runs without rich",
    "setup.progress": "the same",
}


@pytest.mark.parametrize("module", SOURCES)
def test_the_terminal_alone_prints(module):
    calls = [
        node
        for node in ast.walk(read(SOURCES[module]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    ours = module in of_package("terminal") or is_above(module)
    assert ours or not calls or module.removeprefix(f"{NAME}.") in PRINTING


@pytest.mark.parametrize("module", SOURCES)
def test_functions_fit_a_screen(module):
    """Without their docstrings, which may be long where there is much to say."""
    for node in ast.walk(read(SOURCES[module])):
        if isinstance(node, ast.FunctionDef):
            told = len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert (node.end_lineno or 0) - node.lineno + 1 - told <= 54, node.name


def test_commands_are_short():
    commands = {f"{NAME}.__main__", *filter(is_command, SOURCES)}
    lengths = {m: len(SOURCES[m].read_text().splitlines()) for m in commands if m.count(".") == 1}
    assert len(lengths) > 10
    assert max(lengths.values()) <= 140, lengths


def test_the_tests_have_the_folders_of_the_package():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {path.name for path in (ROOT / "tests").iterdir()}


def test_the_programs_are_there():
    inside = {m.removeprefix(f"{NAME}.") for m in SOURCES if m.endswith(".__main__")}
    assert inside - {"__main__"} == set(PROGRAMS)
    for program in PROGRAMS:
        assert imported(f"{NAME}.{program}") & set(of_package("terminal")), program


def home(module: str) -> str:
    """The package that a module is in; a module at the top, and a program, is for itself."""
    name = module.removeprefix(f"{NAME}.")
    return name if name in PROGRAMS else top(name)


def package_graph() -> dict[str, set[str]]:
    """For each package the others that it imports, anywhere in it."""
    graph: dict[str, set[str]] = {}
    for module in SOURCES:
        ours = {home(other) for other in imported(module) if other in SOURCES}
        graph.setdefault(home(module), set()).update(ours - {home(module)})
    return graph


def test_the_packages_form_no_circle():
    graph = package_graph()
    assert {"prototxt", "runtime", "runs"} <= graph["training"]
    assert "train" in graph["jobs.__main__"] and "train" not in graph["jobs"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # each one imports the next
        culprits = [
            f"{module} imports {other}"
            for one, following in zip(circle, circle[1:])
            for module in SOURCES
            for other in sorted(imported(module))
            if home(module) == one and other in SOURCES and home(other) == following
        ]
        pytest.fail(f"{' -> '.join(circle)}:\n" + "\n".join(culprits))


def test_results_are_worked_out_without_a_terminal():
    for module in of_package(
        "knowledge", "lr", "metrics", "records", "tabular", "database", "paper"
    ):
        assert "rich" not in {top(name) for one in reached(module) for name in imported(one)}, (
            module
        )


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that are loaded after a statement, in a fresh interpreter."""
    return set(map(top, all_loaded_by(statement)))


def all_loaded_by(statement: str) -> list[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout.split()


def test_what_a_command_loads_before_it_does_something():
    modules = all_loaded_by(f"import {NAME}.train")
    loaded = set(map(top, modules))
    assert NAME in loaded
    assert not loaded & {"matplotlib", "caffe", "PIL", "sqlalchemy", "psycopg2"}
    # Nor what most trainings do without: the pictures' parts, and the search for a policy.
    assert {name for name in modules if name in of_package("plots", "knowledge")} == {
        f"{NAME}.plots",
        f"{NAME}.plots.files",
    }


def test_the_python_api_loads_no_terminal():
    loaded = all_loaded_by(f"import {NAME}.api")
    assert f"{NAME}.training.session" in loaded
    assert not set(map(top, loaded)) & {"rich", "argparse", "IPython", "matplotlib", "pandas"}
    assert not {name for name in loaded if name.startswith(f"{NAME}.terminal")}


def test_what_the_lr_module_loads():
    loaded = loaded_by(f"import {NAME}.lr")
    assert "numpy" in loaded
    assert not loaded & {"google", "lmdb", "rich", "matplotlib", "psycopg2", "caffe"}


# Functions that read the wall clock: for what a run's records and Caffe's log say. It may be
# stepped at any time, so durations and deadlines come from time.monotonic (and see
# runtime/liveness.py).
WALL_CLOCK = {
    "database.platform": {"_new_secret", "revoke"},  # a token is valid until a day
    "database.uploads": {"_check_times"},  # no training was in the future
    "terminal.db_share": {"pull"},  # when runs were received
    "web.api": {"begun"},
    "web.security": {"valid_token"},
    "runtime.worker": {"glog_line"},
    "runs.directory": {"now"},
    "runs.newest": {"find_newest"},
}


def reads_wall_clock(node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute):
        return False
    clocks = {"time.time", "time.time_ns", "datetime.now"}
    return ast.unparse(node) in clocks or node.attr in {"utcnow", "today"}


def test_the_wall_clock_decides_nothing():
    found: dict[str, set[str]] = {}
    for module, path in SOURCES.items():
        for function in ast.walk(read(path)):
            if isinstance(function, (ast.FunctionDef, ast.Lambda)) and any(
                map(reads_wall_clock, ast.walk(function))
            ):
                name = getattr(function, "name", "a lambda")
                found.setdefault(module.removeprefix(f"{NAME}."), set()).add(name)
    assert found == WALL_CLOCK


# Texts of the domain name parameters (errors.named), which the terminal spells as flags. These hold
# flags: whole commands, with which a process is started or that a message proposes, and words of
# others.
FLAGS = {
    "database.engine": {"--db"},  # python -m lrbench_caffe.db check --db ...
    "datasets.catalogue": {"--out"},  # python -m lrbench_caffe.data mnist --out ...
    "errors": {"--max-iter"},  # the example of ``named``
    "jobs.opening": {
        "--caffe-python", "--head", "--layers", "--level", "--stage", "--trust-data", "--weights",
    },
    "jobs.training": {
        "--branch", "--branch-at", "--branch-points", "--gpu", "--hang-timeout", "--layers", "--lr",
        "--max-iter", "--no-db", "--out", "--resume", "--seed", "--solver", "--start-over",
        "--test-interval", "--until",
    },
    "prototxt.patch": {"--snapshot"},  # of caffe train, as the next four
    "prototxt.solver": {"--stage"},
    "training.replay": {"--snapshot"},
    "training.signals": {"--sighup_effect", "--sigint_effect"},
    "runs.runjson": {"--until"},  # what version 0.1 wrote
    "runs.syncing": {"--out", "--resume"},  # train --resume --out ...
    "web.recommending": {"--lr", "--max-iter"},  # lrbench-caffe train ...
}  # fmt: skip


def flags_in(module: str) -> set[str]:
    strings = (
        node.value for node in ast.walk(read(SOURCES[module])) if isinstance(node, ast.Constant)
    )
    return {
        flag
        for text in strings
        if isinstance(text, str)
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    }


def test_the_domain_names_parameters_and_no_flags():
    found = {
        module.removeprefix(f"{NAME}."): flags_in(module)
        for module in SOURCES
        if not is_command(module) and module not in of_package("terminal", "setup", "__main__")
    }
    assert {module: flags for module, flags in found.items() if flags} == FLAGS
