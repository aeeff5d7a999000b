"""``python -m lrbench_caffe.data`` as a person uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe.data import main
from lrbench_caffe.terminal.cli import run


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_digits_and_again(tmp_path, capsys):
    out = tmp_path / "data"
    assert run(main, ["digits", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"{out}/digits_train_lmdb: 1,297 images of 1x8x8, 10 classes of 128 to 132, sha256"
    )
    assert lines[1].startswith(
        f"{out}/digits_test_lmdb: 500 images of 1x8x8, 10 classes of 46 to 51, sha256"
    )
    assert names(out) == ["digits_test_lmdb", "digits_train_lmdb"]
    written = (out / "digits_train_lmdb" / "data.mdb").stat().st_mtime_ns
    assert run(main, ["digits", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/digits_train_lmdb: already there (1,297 images of 1x8x8)",
        f"{out}/digits_test_lmdb: already there (500 images of 1x8x8)",
    ]
    assert (out / "digits_train_lmdb" / "data.mdb").stat().st_mtime_ns == written


def test_only_what_is_missing_is_made(tmp_path, capsys):
    run(main, ["digits", "--out", str(tmp_path)])
    shutil.rmtree(tmp_path / "digits_test_lmdb")
    capsys.readouterr()
    assert run(main, ["digits", "--out", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "digits_train_lmdb: already there" in first
    assert "digits_test_lmdb: 500 images of 1x8x8, 10 classes" in second


def test_force_and_verify(tmp_path, capsys):
    run(main, ["digits", "--out", str(tmp_path)])
    capsys.readouterr()
    assert run(main, ["digits", "--out", str(tmp_path), "--force", "--verify"]) == 0
    output = capsys.readouterr().out
    assert "already there" not in output
    assert output.count("every record reads back, identical to the published data") == 2


def test_something_else_is_in_the_place(tmp_path, capsys):
    (tmp_path / "digits_train_lmdb").mkdir()
    assert run(main, ["digits", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.endswith(
        "digits_train_lmdb: not an LMDB, it contains no data.mdb; --force replaces it\n"
    )
    assert run(main, ["digits", "--out", str(tmp_path), "--force"]) == 0


def test_an_lmdb_of_another_shape_is_in_the_place(tmp_path, capsys):
    run(main, ["digits", "--out", str(tmp_path)])
    os.rename(tmp_path / "digits_train_lmdb", tmp_path / "mnist_train_lmdb")
    assert run(main, ["mnist", "--out", str(tmp_path), "--source", str(tmp_path)]) == 2
    assert (
        "exists, but contains 1x8x8 instead of 1x28x28; --force replaces it"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["digits", "--source", "."],
            "error: --source and --mirror do not apply to digits: it comes with the",
        ),
        (["mnist", "--source", "nowhere"], "error: --source nowhere: no such folder"),
        (["cifar10", "--source", "nowhere"], "error: --source nowhere: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    assert run(main, [*arguments, "--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(message)
    assert output.err.count("\n") == 1


def test_out_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(main, ["digits", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'file'}: cannot write (File exists)"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_out_that_is_read_only(tmp_path, capsys):
    tmp_path.chmod(0o555)
    assert run(main, ["digits", "--out", str(tmp_path)]) == 2
    assert "cannot write (Permission denied); choose another --out" in capsys.readouterr().err
    tmp_path.chmod(0o755)


def test_as_a_module(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "lrbench_caffe.data"]
    done = subprocess.run([*command, "letters"], capture_output=True, text=True, cwd=root)
    assert done.returncode == 2
    assert "invalid choice: 'letters'" in done.stderr
    done = subprocess.run(
        [*command, "digits", "--out", str(tmp_path)], capture_output=True, text=True, cwd=root
    )
    assert (done.returncode, done.stderr) == (0, "")
