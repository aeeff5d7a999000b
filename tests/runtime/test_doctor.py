"""What the doctor says of the Caffe on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrbench_caffe import doctor
from lrbench_caffe.runtime.locate import runtime_dir, runtime_python
from lrbench_caffe.terminal import cli


@pytest.fixture
def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    python = runtime_python()
    if python is None:
        pytest.skip("there is no runtime")
    assert doctor.main(["--json", "--caffe-python", python]) == 0
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_json(findings: dict[str, dict[str, object]]) -> None:
    assert (
        findings["learning rate"]["value"] == "set directly (base_lr is writable): all solver types"
    )
    assert findings["learning rate"]["remedy"] is None
    assert not any(finding["fatal"] for finding in findings.values())


def test_program_and_blas_are_those_of_the_caffe_that_is_described(
    findings: dict[str, dict[str, object]],
) -> None:
    assert str(findings["caffe program"]["value"]).startswith(f"{runtime_dir()}/caffe ")
    blas = Path(str(findings["BLAS"]["value"]))
    assert blas.is_relative_to(runtime_dir())
    assert b"cblas_sgemm" in blas.read_bytes()


def test_no_caffe_is_fatal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert doctor.main(["--json", "--caffe-python", str(python)]) == 1
    assert [f["name"] for f in json.loads(capsys.readouterr().out) if f["fatal"]] == ["Caffe"]


def test_a_caffe_that_crashes_is_fatal_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -BUS $$\n")
    python.chmod(0o755)
    assert cli.run(doctor.main, ["--json", "--caffe-python", str(python)]) == 1
    (fatal,) = [one for one in json.loads(capsys.readouterr().out) if one["fatal"]]
    assert fatal["remedy"] == f"{python} (--caffe-python): Caffe was killed by SIGBUS"
