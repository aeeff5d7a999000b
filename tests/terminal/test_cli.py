"""What all commands share: help, usage errors, exit codes, and the list of commands."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

import lrbench_caffe
from lrbench_caffe import __main__ as console
from lrbench_caffe.errors import InputError, ParameterError, TrainingError, named
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.terminal import cli

ROOT = Path(lrbench_caffe.__file__).parents[1]
COMMANDS = console.commands()


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "cwd": ROOT, **options}
    return subprocess.run([sys.executable, *arguments], **options)


# -- the list of commands --------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_version_and_its_name_as_it_was_started(name, capsys):
    with pytest.raises(SystemExit) as caught:
        console.main([name, "--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"{lrbench_caffe.__version__}\n")
    with pytest.raises(SystemExit):
        console.main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lrbench-caffe {name} ")
    assert "python -m" not in text


def test_an_error_names_commands_as_this_one_was_started(capsys, monkeypatch):
    def refuse(arguments):
        raise InputError("no data; python -m lrbench_caffe.data mnist makes it")

    cli.run(refuse, [])
    assert (
        capsys.readouterr().err == "error: no data; python -m lrbench_caffe.data mnist makes it\n"
    )
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lrbench-caffe"])
    cli.run(refuse, [])
    assert capsys.readouterr().err == "error: no data; lrbench-caffe data mnist makes it\n"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("r", {"range", "rank", "recommend", "reproduce"}),
        ("--comp", {"--completion "}),
        ("train --max", {"--max-iter "}),
        ("train --layers ", {"auto", "fast", "fast-avx2", "stock"}),
        ("train --lr sin2 solvers/lenet_d", {"solvers/lenet_digits_solver.prototxt "}),
        ("db im", {"import", "import-log"}),
        ("trian", set()),
    ],
)
def test_completion_in_the_shell(typed, expected, tmp_path):
    """What argcomplete's shell code does: the line and the cursor in variables, the answer in a file."""
    pytest.importorskip(
        "argcomplete", reason="argcomplete is not installed; tools/setup installs it"
    )
    line = f"lrbench-caffe {typed}"
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }
    python("-m", "lrbench_caffe", env=environment)
    assert set(answer.read_text().splitlines()) == expected


@pytest.mark.parametrize("shell", console.SHELLS)
def test_code_for_completion(shell, capsys):
    pytest.importorskip(
        "argcomplete", reason="argcomplete is not installed; tools/setup installs it"
    )
    assert console.main(["--completion", shell]) == 0
    assert "lrbench-caffe" in capsys.readouterr().out


@pytest.mark.parametrize("shells", [[], ["cmd"], ["bash", "zsh"]])
def test_a_shell_that_is_not_known(shells, capsys):
    assert console.main(["--completion", *shells]) == 2
    error = f"error: --completion: {' '.join(shells) or 'nothing'}; allowed: bash, zsh, fish\n"
    assert capsys.readouterr().err == error


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
        "import sys; from lrbench_caffe.__main__ import commands; commands(); "
        "print('numpy' in sys.modules)"
    )
    assert python("-c", code).stdout == "True\n"  # by terminal.cli, which knows PolicyError
    assert python("-c", code.replace("numpy", "lrbench_caffe.train")).stdout == "False\n"


# -- errors and exit codes -------------------------------------------------------------------------


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


def test_an_error_of_the_package_names_the_parameter_and_the_command_line_its_flag(capsys):
    def refused() -> ParameterError:
        text = "{max_iter}: {0}; with {policy} {1!r} allowed: {2} or more"
        return ParameterError(text, 0, "{k0}", 1)

    def main(argv: Sequence[str]) -> NoReturn:
        print(f"note: {named('hang_seconds')}")
        raise InputError(f"solver.prototxt: {refused()}")

    error = refused()
    assert str(error) == "max_iter: 0; with policy '{k0}' allowed: 1 or more"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error.within("{resume}: ")) == f"resume: {error}"
    assert cli.run(main, []) == 2
    said = capsys.readouterr()
    assert said.out == "note: --hang-timeout\n"
    line = "error: solver.prototxt: --max-iter: 0; with --lr '{k0}' allowed: 1 or more\n"
    assert said.err == line
    assert (named("hang_seconds"), str(refused())) == ("hang_seconds", str(error))  # as before


def test_debug_shows_the_traceback(capsys):
    assert cli.run(raises(InputError("no such file: x")), ["--debug"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("error: no such file: x\n")


def test_ctrl_c(capsys):
    assert cli.run(raises(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def interrupted(*args: str, path: str = "") -> tuple[int, str]:
    """Exit code and stderr of a Python program that gets SIGINT as soon as it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, *args], env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


WAITS = "print('here', flush=True); time.sleep(60)"


@pytest.mark.parametrize("name", ["train", "reproduce"])
def test_ctrl_c_while_a_command_is_loaded(tmp_path, name):
    (tmp_path / "numpy.py").write_text(f"import time; {WAITS}")
    assert interrupted("-m", f"lrbench_caffe.{name}", path=str(tmp_path)) == (-signal.SIGINT, "")


def test_ctrl_c_where_python_can_raise_nothing():
    code = """
import signal, sys, time
sys.argv = ["-m"]
from lrbench_caffe.terminal import cli

class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def main(arguments):
    Last()
    time.sleep(60)

sys.exit(cli.run(main))
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (cli.INTERRUPTED, "", "interrupted\n")


def test_ctrl_c_in_a_command_and_at_its_end():
    begin = "import atexit, sys, time; sys.argv = ['-m']; from lrbench_caffe.terminal import cli\n"
    during = f"def main(arguments): {WAITS}\nsys.exit(cli.run(main))"
    assert interrupted("-c", begin + during) == (cli.INTERRUPTED, "interrupted\n")
    after = f"def wait(): {WAITS}\natexit.register(wait); cli.run(lambda arguments: 0)"
    assert interrupted("-c", begin + after) == (-signal.SIGINT, "")


def test_a_program_that_uses_the_package_keeps_its_ctrl_c():
    code = (
        f"import time, lrbench_caffe\ntry: {WAITS}\nexcept KeyboardInterrupt: raise SystemExit(7)"
    )
    assert interrupted("-c", code) == (7, "")


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
from lrbench_caffe.terminal import cli
sys.exit(cli.run(lambda argv: print("x" * {size}), []))
"""


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_reader_that_goes_away_is_no_error(size):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", BIG_OUTPUT.format(size=size)]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, env=environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


PRINTING = """
import sys
from lrbench_caffe.terminal import cli
def main(argv):
    print("K\\u00f6ln \\u2192")
    return {code}
sys.exit(cli.run(main, []))
"""


def shell(redirection: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run Python with ``redirection``; returns exit code, stdout and stderr."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**variables, **environment}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("code", [0, 2])
def test_a_closed_stdout_is_no_error(code):
    assert shell(">&-", "-c", PRINTING.format(code=code)) == (code, "", "")
    assert shell(">&- 2>&- <&-", "-c", PRINTING.format(code=code)) == (code, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("program", "unbuffered"),
    [
        (["-c", PRINTING.format(code=0)], ""),
        (["-c", PRINTING.format(code=0)], "1"),
        (["-c", BIG_OUTPUT.format(size=1_000_000)], ""),
        (["-m", "lrbench_caffe", "--help"], ""),
        (["-m", "lrbench_caffe.doctor", "--help"], ""),
    ],
)
def test_a_full_stdout_is_one_line(program, unbuffered):
    code, _, error = shell(">/dev/full", *program, PYTHONUNBUFFERED=unbuffered)
    # A write without a buffer fails as that to any file does, without a name.
    assert (code, error.replace("standard output: ", "")) == (1, "error: No space left on device\n")
    assert shell(">/dev/full 2>&1", *program, PYTHONUNBUFFERED=unbuffered)[0] == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_stdout_does_not_change_the_code_of_a_failure():
    assert shell(">/dev/full", "-c", PRINTING.format(code=2))[0] == 2


def test_what_the_locale_cannot_print_is_replaced():
    program = PRINTING.format(code=0)
    assert shell("", "-c", program, PYTHONIOENCODING="ascii") == (0, "K?ln ?\n", "")
    assert shell("", "-c", program, PYTHONIOENCODING="utf-8") == (0, "K\u00f6ln \u2192\n", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "runs/a"), "runs/a: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_an_operating_system_error_is_one_line(capsys, error, line):
    assert cli.run(raises(error), []) == 1
    assert capsys.readouterr() == ("", f"error: {line}\n")
    assert cli.run(raises(error), ["--debug"]) == 1
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


# -- the parser ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "words",
    [
        "train s.prototxt --out", "train s.prototxt --branch", "tune s.prototxt --out",
        "range s.prototxt --out", "rank --out", "rank --plot", "plot schedule FIX(k0=1) --out",
        "reproduce table7 --out", "data mnist --out",
    ],
)  # fmt: skip
def test_an_empty_name_of_a_place_is_a_variable_that_is_not_set(words, capsys):
    name, *arguments = words.split()
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"lrbench_caffe.{name}").main([*arguments, ""])
    assert caught.value.code == 2
    wanted = f"argument {arguments[-1]}: ''; allowed: the name of a file or folder"
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "tune", "range", "reproduce"])
def test_the_hang_timeout_is_one_flag(name, capsys):
    main = importlib.import_module(f"lrbench_caffe.{name}").main
    for value in ("-1", "nan", "soon"):
        with pytest.raises(SystemExit) as caught:
            main(["table7", "--hang-timeout", value])
        assert caught.value.code == 2
        wanted = f"--hang-timeout: {value}; allowed: 0 (never) or more"
        assert wanted in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "SECONDS without output; 0: never (default: 600)" in said
