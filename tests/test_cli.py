"""What all commands share: help, usage errors, exit codes, and the list of commands."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lrbench_caffe
from lrbench_caffe import __main__ as console
from lrbench_caffe import cli
from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.lr import PolicyError

ROOT = Path(lrbench_caffe.__file__).parents[1]
COMMANDS = console.commands()


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "cwd": ROOT, **options}
    return subprocess.run([sys.executable, *arguments], **options)


# -- the list of commands ---------------------------------------------------------------------------


def test_commands_are_found():
    assert {"train", "data", "doctor"} <= set(COMMANDS)
    assert not {"lr", "metrics", "cli", "errors", "__main__"} & set(COMMANDS)
    for name, line in COMMANDS.items():
        assert len(line) > 10, name  # says in a line what it does


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = python("-m", f"lrbench_caffe.{name}", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "--debug" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_usage_error_is_one_line(name):
    done = python("-m", f"lrbench_caffe.{name}", "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "error: " in done.stderr
    assert "--help)" in done.stderr


def test_console_script_lists_the_commands(capsys):
    assert console.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert f"lrbench-caffe {lrbench_caffe.__version__}" in text
    for name, line in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text
    assert console.main([]) == 2
    assert capsys.readouterr().out == text


def test_console_script_version(capsys):
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{lrbench_caffe.__version__}\n"


def test_console_script_runs_modules_and_packages(capsys):
    for name in ("train", "data"):
        with pytest.raises(SystemExit) as caught:
            console.main([name, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith("usage: ")


def test_console_script_passes_exit_codes_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console.main(["data", "mnist", "--source", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --source nowhere: no such folder")
    assert error.count("\n") == 1


def test_console_script_with_an_unknown_command(capsys):
    assert console.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'trian'")
    assert "train" in error.split("known: ")[1]
    assert error.count("\n") == 1


def test_the_package_is_the_console_script():
    done = python("-m", "lrbench_caffe", "--version")
    assert (done.returncode, done.stdout) == (0, f"{lrbench_caffe.__version__}\n")


def test_commands_do_not_load_each_other():
    # The list reads the files; importing all of them would be slow.
    code = (
        "import sys; from lrbench_caffe.__main__ import commands; commands(); print('numpy' in sys.modules)"
    )
    assert python("-c", code).stdout == "True\n"  # through lrbench_caffe.cli, which knows PolicyError
    assert python("-c", code.replace("numpy", "lrbench_caffe.train")).stdout == "False\n"


# -- errors and exit codes --------------------------------------------------------------------------


def raises(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no such file: x"), 2),
        (TrainingError("Caffe died"), 1),
        (PolicyError("unknown LR function"), 2),
    ],
)
def test_errors_for_people_are_one_line(capsys, error, code):
    assert cli.run(raises(error), []) == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_debug_shows_the_traceback(capsys):
    assert cli.run(raises(InputError("no such file: x")), ["--debug"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("error: no such file: x\n")


def test_ctrl_c(capsys):
    assert cli.run(raises(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(raises(ZeroDivisionError()), [])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_what_main_returns_is_the_exit_code(returned, code):
    assert cli.run(lambda argv: returned, []) == code


def test_arguments_are_those_of_the_command_line_by_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "a", "b"])
    seen = []
    cli.run(lambda argv: seen.append(list(argv)), None)
    assert seen == [["a", "b"]]


BIG_OUTPUT = """
import sys
from lrbench_caffe import cli
sys.exit(cli.run(lambda argv: print("x" * {size}), []))
"""


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_reader_that_goes_away_is_no_error(size):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", BIG_OUTPUT.format(size=size)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, env=environment)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# -- the parser -------------------------------------------------------------------------------------


def test_options_are_not_abbreviated(capsys):
    parser = cli.Parser(prog="it")
    parser.add_argument("--verbose", action="store_true")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--verb"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "it: error: unrecognized arguments: --verb (see it --help)\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_called_with_its_arguments_alone(name):
    package = (Path(lrbench_caffe.__file__).parent / name).is_dir()
    module = importlib.import_module(f"lrbench_caffe.{name}" + (".__main__" if package else ""))
    with pytest.raises(SystemExit) as caught:
        module.main(["--no-such-option"])
    assert caught.value.code == 2
