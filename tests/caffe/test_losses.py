"""Trainings that are lost are tried again, and come out as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs import Job, JobResult, LocalPool, RetryingPool
from lrbench_caffe.jobs.child import run_child
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe import nets
from tests.caffe.harness import (
    ENVIRONMENT,
    ROOT,
    Workspace,
    assert_same_weights,
    descendants,
    drivers,
)

# Starts Caffe's Python with too little memory, the first time for each log that is named like this.
SHORT_OF_MEMORY = """#!/bin/sh
log=$(readlink /proc/$$/fd/2)
case "$log" in */memory/caffe.log) mkdir "$log.first" 2>/dev/null && ulimit -v 400000 ;; esac
exec {python} "$@"
"""


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(workspace.path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = workspace.path / "short"
    script.write_text(SHORT_OF_MEMORY.format(python=" ".join(find_caffe_python(None).command)))
    script.chmod(0o755)
    return workspace


def training(out: str, **more: object) -> Job:
    options = {"policy": "FIX(k0=0.05)", "max_iter": 1000, "test_interval": 250, "db": "", **more}
    flags = ("--layers", "stock", "--caffe-python", "./short")
    return Job("solver.prototxt", seed=3, out=out, flags=flags, retry=True, **options)  # type: ignore[arg-type]


@pytest.mark.ci
def test_killed_and_short_of_memory_they_come_out_as_undisturbed_ones(here: Workspace) -> None:
    said: list[str] = []
    kills = {"driver": signal.SIGKILL, "worker": signal.SIGSEGV}
    found: dict[str, JobResult] = {}
    with LocalPool(2) as local:
        pool = RetryingPool(local, said.append)
        for out in ("driver", "worker", "memory"):
            pool.submit(training(out))
        while len(found) < 3:
            result = pool.next(timeout=0.01)
            if result is not None:
                found[result.training.out] = result
            for out in [out for out in kills if len(here.run(out).measurements()) > 1]:
                (victim,) = drivers(here.path / out)
                os.kill(victim if out == "driver" else descendants(victim)[0], kills.pop(out))
    assert {out: (one.status, one.losses) for out, one in found.items()} == dict.fromkeys(
        ("driver", "worker", "memory"), ("finished", 1)
    )
    assert len(said) == 3 and all("it is tried again" in line for line in said)
    assert any("emory" in line and "tried again, alone" in line for line in said)
    run_child(training("untouched"))
    untouched = here.run("untouched")
    for out in found:
        run = here.run(out)
        assert run.iterations() == untouched.iterations()
        assert run.last_measurements() == untouched.last_measurements()
        assert_same_weights(run.model(1000), untouched.model(1000))
    # As each iteration stands there once, what was trained again is counted beside it.
    assert here.run("memory").record.get("repeated", 0) == 0
    assert all(here.run(out).record["repeated"] >= 250 for out in ("driver", "worker"))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("kill -BUS $$", "Caffe was killed by SIGBUS"),
        (
            "echo python: 4: Cannot fork >&2; exit 2",
            "Caffe ended with exit code 2: python: 4: Cannot fork",
        ),
        (
            "exit 127",
            "Caffe ended with exit code 127",
        ),  # a program that the launcher needs was killed
    ],
)
def test_a_caffe_that_fails_to_start_is_started_again(
    here: Workspace, end: str, reason: str
) -> None:
    first = f'mkdir "$log.first" 2>/dev/null && {{ {end}; }}'
    crash = f'case "$log" in */crash/caffe.log) {first} ;; esac\nexec '
    here.write("short", (here.path / "short").read_text().replace("exec ", crash))
    said: list[str] = []
    with LocalPool(1) as local:
        pool = RetryingPool(local, said.append)
        pool.submit(training("crash", max_iter=20, test_interval=10))
        while (result := pool.next(timeout=60)) is None:
            pass
    assert (result.status, result.losses, result.iteration) == ("finished", 1, 20)
    (line,) = said
    assert f"{reason}; it is tried again" in line


def test_the_start_of_tune_names_a_caffe_that_crashes(here: Workspace) -> None:
    here.write("broken", "#!/bin/sh\nkill -SEGV $$\n")
    (here.path / "broken").chmod(0o755)
    tune = [sys.executable, "-m", "lrbench_caffe.tune", "solver.prototxt", "--no-db"]
    done = here.command([*tune, "--caffe-python", "./broken"]).failed(1)
    assert done.err == f"error: {here.path}/broken (--caffe-python): Caffe was killed by SIGSEGV\n"


@pytest.mark.ci
def test_losses_at_caffes_ceiling_are_counted_across_parts(here: Workspace) -> None:
    """Weights that are far too large, and an LR that leaves them so: 100 of such losses are a divergence."""
    here.write("net.prototxt", nets.net().replace('type: "xavier"', 'type: "gaussian" std: 1000'))
    whole = run_child(training("whole", policy="FIX(k0=1e-12)"))
    assert (whole.status, whole.iteration) == ("diverged", 100)
    assert run_child(training("parts", policy="FIX(k0=1e-12)", until=50)).status == "stopped"
    rest = run_child(training("parts", policy="FIX(k0=1e-12)"))
    assert (rest.status, rest.reason, rest.iteration) == (
        whole.status,
        whole.reason,
        whole.iteration,
    )
    assert here.run("parts").iterations() == here.run("whole").iterations()


def test_what_caffe_refuses_ends_the_command(here: Workspace) -> None:
    """It may have been edited since the command looked at it."""
    here.write("net.prototxt", nets.net().replace('"InnerProduct"', '"NoSuchLayer"', 1))
    with LocalPool(1) as local:
        pool = RetryingPool(local, print)
        pool.submit(training("run"))
        with pytest.raises(InputError, match="NoSuchLayer"):
            pool.next(timeout=120)


KILLS = 5  # fewer than it takes to lose a training for good
MORE = ("--layers", "stock", "--jobs", "2", "--out", "out", "--db", "sqlite:///lr.sqlite")
TUNE = (
    "lrbench_caffe.tune", "solver.prototxt", "--fresh", "--functions", "cyclic", "--max-iter", "200",
    "--test-interval", "50", "--top", "1", "--seeds", "2", "--budget", "1400",
)  # fmt: skip
RANGE = ("lrbench_caffe.range", "solver.prototxt", "--iterations", "200", "--test-interval", "50")
REPRODUCE = ("tests.reproduction.digits", "table7", "--iterations-scale", "0.1", "--seeds", "2")


def without_time(text: str) -> str:
    """A result without how long it took."""
    return re.sub(r'"seconds": [0-9.]+', "", text)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("command", "file", "seed"),
    [
        (TUNE, "result.json", 1),
        (TUNE, "result.json", 2),
        (RANGE, "range.json", 3),
        (REPRODUCE, "table7-scaled-200.csv", 4),
    ],
    ids=["tune-1", "tune-2", "range", "reproduce"],
)
def test_a_study_whose_trainings_are_killed(
    workspace: Workspace, command: tuple[str, ...], file: str, seed: int
) -> None:
    """Any process of it but its own, at any time: the result is that of one that was left alone."""
    (workspace.path / "solvers").symlink_to(ROOT / "solvers")
    words = [sys.executable, "-m", *command, *MORE]
    out = workspace.path / "out"
    began = time.monotonic()
    done = subprocess.run(
        words,
        cwd=workspace.path,
        env=ENVIRONMENT,
        check=False,
        timeout=600,
        stdout=subprocess.DEVNULL,
    )
    pace = (time.monotonic() - began) / KILLS
    wanted = without_time((out / file).read_text())
    for path in (out, workspace.path / "lr.sqlite"):
        path.rename(path.with_name(f"untouched-{path.name}"))
    chance, killed = random.Random(seed), 0
    process = subprocess.Popen(
        words, cwd=workspace.path, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    while process.poll() is None and killed < KILLS:
        time.sleep(chance.uniform(0, pace))
        trainings = descendants(process.pid) if any(out.rglob("run.json")) else []
        if trainings and process.poll() is None:
            kind = chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(trainings), kind)
            killed += 1
    said, _ = process.communicate(timeout=600)
    assert "it is tried again" in said and "Traceback" not in said
    assert process.returncode == done.returncode, said
    assert without_time((out / file).read_text()) == wanted
