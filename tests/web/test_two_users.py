"""Two users share through a platform: one trains and sends, the other one's recommendation uses it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.caffe.conftest import caffe_program, digits
from tests.caffe.harness import ROOT

__all__ = ["caffe_program", "digits"]
SOLVER = ROOT / "solvers" / "lenet_digits_solver.prototxt"


@pytest.mark.slow
def test_what_one_trained_and_sent_the_other_is_recommended(serve, token, digits, tmp_path):
    address, secret = serve(), token("ada", "write")

    def user(name: str, module: str, *arguments: object) -> str:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        for folder in (ROOT / "prototxt", digits):
            link = home / folder.name
            if not link.exists():
                link.symlink_to(folder)
        words = [sys.executable, "-m", f"lrbench_caffe.{module}", *map(str, arguments)]
        own = {"XDG_DATA_HOME": str(home / "share"), "LRBENCH_TOKEN": secret}
        environment = {k: v for k, v in os.environ.items() if k != "LRBENCH_DB"}
        run = subprocess.run(
            words, cwd=home, env={**environment, **own}, capture_output=True, text=True, timeout=250
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    user("ada", "train", SOLVER, "--lr", "sin2", "--max-iter", 600, "--seed", 3, "--out", "run")
    assert "1 new, 0 already there, 0 refused" in user("ada", "db", "push", address)

    before = user("bob", "recommend", SOLVER)
    assert "no result on this task" in before and "ada" not in before
    assert "1 new or completed" in user("bob", "db", "pull", address)
    after = user("bob", "recommend", SOLVER)
    assert re.search(r"on the same task, digits / LeNet_digits \(measured, 1 run, from ada,", after)
    assert "from ada" in user("bob", "recommend", SOLVER, "--contributors", "ada")
