"""The command init: the example set-ups in a folder of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lrbench_caffe import init, installation
from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt import examples
from lrbench_caffe.terminal import cli

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(
    str(path.relative_to(ROOT))
    for name in ("solvers", "prototxt")
    for path in (ROOT / name).iterdir()
)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(*arguments: str) -> int:
    return cli.run(init.main, arguments)


def test_all_set_ups_are_written_once(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert len(NAMES) == 10
    assert run(str(folder)) == 0
    assert files_below(folder) == NAMES
    for name in NAMES:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert capsys.readouterr().out.splitlines()[-1] == "10 of 10 files written"
    (folder / NAMES[0]).unlink()
    assert run(str(folder)) == 0
    assert capsys.readouterr().out == f"{folder / NAMES[0]}\n1 of 10 files written\n"
    assert run(str(folder)) == 0
    assert capsys.readouterr().out == "all files exist already\n"


def test_a_file_of_ones_own_is_replaced_with_force_alone(tmp_path, capsys):
    own = tmp_path / "solvers" / "lenet_mnist_solver.prototxt"
    own.parent.mkdir()
    own.write_text("mine")
    assert run(str(tmp_path)) == 2
    error = f"error: not the examples of this version: {own}; --force replaces them\n"
    assert capsys.readouterr().err == error
    assert files_below(tmp_path) == [
        "solvers/lenet_mnist_solver.prototxt"
    ]  # nothing else was written
    assert run(str(tmp_path), "--force") == 0
    assert files_below(tmp_path) == NAMES
    assert own.read_bytes() == (ROOT / "solvers" / own.name).read_bytes()


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize(
    ("blocked", "by", "reason"),
    [
        ("solvers", "file", "Not a directory"),
        ("prototxt/lenet_mnist_train_test.prototxt", "folder", "Is a directory"),
        (".", "file", "Not a directory"),
    ],
)
def test_a_place_that_is_taken_is_one_line(blocked, by, reason, force, tmp_path, capsys):
    folder = tmp_path / "folder"
    path = folder / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if by == "folder" else path.write_text("")
    assert run(str(folder), *force) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {folder}") and said.err.endswith(f": {reason}\n")


def test_each_set_up_has_a_net_and_a_solver():
    keys = ["cnn3_cifar10", "lenet_digits", "lenet_fine_tuning", "lenet_mnist", "resnet32_cifar10"]
    assert sorted(str(name) for key in keys for name in examples.names_of(key)) == NAMES


def test_a_solver_that_is_missing_is_named_with_what_writes_it(tmp_path, monkeypatch, messages):
    monkeypatch.chdir(tmp_path)
    for name in ("solvers/lenet_digits_solver.prototxt", "solvers/lenet_digits.prototxt"):
        with pytest.raises(InputError) as caught:
            messages.read_text("SolverParameter", Path(name))
        remedy = (
            "; python -m lrbench_caffe.init . writes it"
            if name.endswith("_solver.prototxt")
            else ""
        )
        assert str(caught.value) == f"cannot read {name}: No such file or directory{remedy}"


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    package = tmp_path / "site" / "lrbench_caffe"
    for name in ("solvers", "prototxt"):
        shutil.copytree(ROOT / name, package / "examples" / name)
    monkeypatch.setattr(installation, "clone", lambda: None)
    monkeypatch.setattr(examples, "__file__", str(package / "prototxt" / "examples.py"))
    assert run(str(tmp_path / "folder")) == 0
    assert files_below(tmp_path / "folder") == NAMES
