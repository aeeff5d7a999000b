"""Which Python is taken for Caffe, and what is said when there is none."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.locate import (
    CaffePython,
    caffe_binary,
    caffe_program_of,
    find_caffe_python,
    runtime_dir,
)


def fake_python(path: Path, *, has_caffe: bool = True, log: Path | None = None) -> Path:
    """Write an executable that ends as a Python with or without caffe does when it is probed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = f'echo "$0" >> "{log}"\n' if log else ""
    path.write_text(f"#!/bin/sh\n{note}exit {0 if has_caffe else 1}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which there is no Caffe anywhere."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(locate.VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_explicit_comes_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explicit, variable = fake_python(tmp_path / "a"), fake_python(tmp_path / "b")
    monkeypatch.setenv(locate.VARIABLE, str(variable))
    assert find_caffe_python(str(explicit)) == CaffePython([str(explicit)], "caffe_python")
    assert find_caffe_python(None) == CaffePython([str(variable)], "LRBENCH_CAFFE_PYTHON")


def test_a_named_interpreter_is_not_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    find_caffe_python(str(fake_python(tmp_path / "python", log=log)))
    assert not log.exists()


def test_variable_comes_before_everything_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(runtime_dir() / "python")
    fake_python(tmp_path / "bin" / "python3")
    monkeypatch.setenv(locate.VARIABLE, str(fake_python(tmp_path / "named")))
    assert find_caffe_python().command == [str(tmp_path / "named")]


def test_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    python = fake_python(runtime_dir() / "python")
    monkeypatch.setenv(locate.VARIABLE, "")
    assert find_caffe_python().command == [str(python)]


def test_this_interpreter_comes_before_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(runtime_dir() / "python")
    spec = importlib.machinery.ModuleSpec("caffe", None, origin="/anywhere/caffe/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert find_caffe_python() == CaffePython([sys.executable], "this Python")
    assert "caffe" not in sys.modules


def test_a_directory_called_caffe_is_no_caffe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(locate.VARIABLE, raising=False)
    (tmp_path / "caffe").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert importlib.util.find_spec("caffe") is not None
    assert not locate.this_interpreter_has_caffe()


def test_runtime_comes_before_the_path(tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = fake_python(runtime_dir() / "python")
    fake_python(tmp_path / "bin" / "python3", log=log)
    assert find_caffe_python() == CaffePython([str(python)], "the runtime made by tools/setup")
    assert not log.exists()


def test_python3_comes_before_python2(tmp_path: Path) -> None:
    python2 = fake_python(tmp_path / "bin" / "python2")
    assert find_caffe_python() == CaffePython([str(python2)], "python2 on the PATH")
    python3 = fake_python(tmp_path / "bin" / "python3")
    assert find_caffe_python() == CaffePython([str(python3)], "python3 on the PATH")


def test_a_python_hidden_by_one_without_caffe_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(tmp_path / "venv" / "python3", has_caffe=False)
    system = fake_python(tmp_path / "usr" / "python3")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "venv"), "", str(tmp_path / "usr")]))
    assert find_caffe_python().command == [str(system)]


def test_each_python_on_the_path_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    fake_python(tmp_path / "usr" / "bin" / "python3", has_caffe=False, log=log)
    (tmp_path / "bin").symlink_to(tmp_path / "usr" / "bin")
    directories = [str(tmp_path / "bin"), str(tmp_path / "usr" / "bin")]
    monkeypatch.setenv("PATH", os.pathsep.join(directories))
    with pytest.raises(InputError):
        find_caffe_python()
    assert len(log.read_text().splitlines()) == 1


def test_a_python_that_cannot_be_started_is_passed_over(tmp_path: Path) -> None:
    broken = fake_python(tmp_path / "bin" / "python3")
    broken.write_text("#!/nonexistent/interpreter\n")
    python2 = fake_python(tmp_path / "bin" / "python2")
    assert find_caffe_python().command == [str(python2)]


@pytest.mark.parametrize("end", ["kill -KILL $$", "kill -SEGV $$", "kill -BUS $$", "exit 137"])
def test_a_python_that_crashes_is_not_passed_over(tmp_path: Path, end: str) -> None:
    """Whichever comes after it may have another Caffe."""
    python3 = fake_python(tmp_path / "bin" / "python3")
    python3.write_text(f"#!/bin/sh\n{end}\n")
    fake_python(tmp_path / "bin" / "python2")
    ended = "was killed by SIG(KILL|SEGV|BUS) while it imported caffe; LRBENCH_CAFFE_PYTHON or caffe_python"
    with pytest.raises(TrainingError, match=f"^{python3} {ended}"):
        find_caffe_python()


def test_a_python_that_hangs_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "PROBE_SECONDS", 0.3)
    python3 = fake_python(tmp_path / "bin" / "python3")
    python3.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    with pytest.raises(TrainingError, match=f"^{python3} gave no sign of life for 0.3 s while "):
        find_caffe_python()


def test_no_caffe_anywhere_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin" / "python3", has_caffe=False)
    with pytest.raises(InputError) as caught:
        find_caffe_python()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "no Caffe found",
        str(runtime_dir()),
        "python3 or python2",
        "tools/setup",
        locate.VARIABLE,
    ):
        assert part in message


@pytest.mark.parametrize("source", ["caffe_python", "LRBENCH_CAFFE_PYTHON"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "does not exist"),
        ("directory", "is a directory"),
        ("plain", "is not executable"),
    ],
)
def test_an_interpreter_that_cannot_be_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: str, expected: str
) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "plain":
        path.touch(0o644)
    explicit = str(path) if source == "caffe_python" else None
    if explicit is None:
        monkeypatch.setenv(source, str(path))
    with pytest.raises(InputError) as caught:
        find_caffe_python(explicit)
    assert str(caught.value).startswith(f"{source}: {path} {expected}")


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = fake_python(tmp_path / "mine" / "python")
    monkeypatch.chdir(tmp_path)
    assert find_caffe_python("mine/python").command == [str(python)]


def test_home_and_command_names_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    python = fake_python(tmp_path / "mine" / "python")
    assert find_caffe_python("~/mine/python").command == [str(python)]
    command = fake_python(tmp_path / "bin" / "caffe-python")
    assert find_caffe_python("caffe-python").command == [str(command)]


def test_symbolic_links_are_kept(tmp_path: Path) -> None:
    fake_python(tmp_path / "real")
    (tmp_path / "venv-python").symlink_to(tmp_path / "real")
    assert find_caffe_python(str(tmp_path / "venv-python")).command == [
        str(tmp_path / "venv-python")
    ]


def test_runtime_dir_follows_the_xdg_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runtime_dir() == tmp_path / "cache" / "lrbench_caffe" / "caffe-runtime"
    monkeypatch.setenv("HOME", str(tmp_path))
    for invalid in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", invalid)
        assert runtime_dir() == tmp_path / ".cache" / "lrbench_caffe" / "caffe-runtime"


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("opt/caffe/python/caffe", "opt/caffe/build/tools/caffe"),  # where it was compiled
        ("opt/caffe/distribute/python/caffe", "opt/caffe/distribute/bin/caffe"),
        ("env/lib/python3.6/site-packages/caffe", "env/bin/caffe"),
        ("usr/lib/python3/dist-packages/caffe", "usr/bin/caffe"),
    ],
)
def test_the_caffe_program_is_that_of_the_same_caffe(
    tmp_path: Path, package: str, program: str
) -> None:
    fake_python(tmp_path / "bin" / "caffe")  # the PATH's, another one
    fake_python(runtime_dir() / "caffe")
    (tmp_path / "elsewhere" / package).mkdir(parents=True)
    own = fake_python(tmp_path / "elsewhere" / program)
    assert caffe_program_of(str(tmp_path / "elsewhere" / package)) == str(own)
    assert caffe_program_of(str(runtime_dir() / "root" / package)) == str(runtime_dir() / "caffe")


def test_caffe_binary(tmp_path: Path) -> None:
    assert caffe_binary() is None
    on_path = fake_python(tmp_path / "bin" / "caffe")
    assert caffe_binary() == str(on_path)
    ours = fake_python(runtime_dir() / "caffe")
    assert caffe_binary() == str(ours)
