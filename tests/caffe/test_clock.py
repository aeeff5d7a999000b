"""Steps of the wall clock, by a library preloaded into the driver's and Caffe's processes."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.runtime.locate import runtime_python
from tests.caffe import nets
from tests.caffe.harness import Workspace, assert_same_weights

HOUR, YEAR = 3600, 365 * 86400

# Adds to the wall clock what the file of CLOCK_STEP holds, in seconds. Only symbols that every C
# library has.
STEP = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *step;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CLOCK_STEP");
    int file = path ? open(path, O_RDONLY) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED)
        step = found;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && step && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += *step;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int result = syscall(SYS_gettimeofday, now, zone);
    if (!result && step)
        now->tv_sec += *step;
    return result;
}

time_t time(time_t *place)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}
"""


class SteppedClock:
    """The wall clock of a workspace's commands."""

    def __init__(self, workspace: Workspace, compiler: str) -> None:
        folder = workspace.path / "clock"
        folder.mkdir()
        (folder / "step.c").write_text(STEP)
        library = folder / "step.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "step.c"], check=True
        )
        (folder / "seconds").write_bytes(bytes(8))
        with (folder / "seconds").open("r+b") as file:
            self._seconds = mmap.mmap(file.fileno(), 8)
        variables = {"LD_PRELOAD": str(library), "CLOCK_STEP": str(folder / "seconds")}
        workspace.environment.update(
            variables, LRBENCH_CAFFE_PYTHON=str(_launcher(folder, library))
        )

    def step(self, seconds: int) -> None:
        """Let the clock be this far from the real one from now on."""
        self._seconds[:] = struct.pack("q", seconds)


def _launcher(folder: Path, library: Path) -> Path:
    """The runtime's launcher, which clears LD_PRELOAD, with the library in it."""
    runtime = Path(str(runtime_python())).resolve()
    text = runtime.read_text()
    for old, new in (
        ('$(readlink -f -- "$0")', str(runtime)),
        ("--inhibit-cache", f"--inhibit-cache --preload {library}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "python"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def clock(workspace: Workspace) -> SteppedClock:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    if runtime_python() is None:
        pytest.skip("there is no runtime made by tools/setup")
    workspace.write("solver.prototxt", nets.solver(max_iter=4000, test_interval=500, display=0))
    return SteppedClock(workspace, compiler)


def test_the_clock_of_both_processes_is_stepped(workspace: Workspace, clock: SteppedClock) -> None:
    """Or the other tests would show nothing."""
    clock.step(YEAR)
    code = "import time; print(time.time())"
    for python in ("python3", workspace.environment["LRBENCH_CAFFE_PYTHON"]):
        shown = float(workspace.command([python, "-c", code]).succeeded().out)
        assert shown - os.stat(workspace.path / "solver.prototxt").st_mtime > YEAR - 1


@pytest.mark.ci
def test_steps_of_the_clock_change_nothing(workspace: Workspace, clock: SteppedClock) -> None:
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    flags = ("--hang-timeout", "120", "--db", "sqlite:///lr.sqlite")
    with workspace.training("solver.prototxt", *flags, out="run") as training:
        training.wait_for_test(500)
        clock.step(YEAR)  # forward, back, and there it is told to stop
        training.wait_for_test(1000)
        clock.step(-HOUR)
        training.wait_for_test(1500)
        clock.step(YEAR)
        training.send(signal.SIGINT)
        training.finish().succeeded()
    run = workspace.run("run")
    assert run.record["status"] == "stopped"
    clock.step(-YEAR)
    workspace.train("--resume", "--out", "run", *flags).succeeded()

    whole = workspace.run("whole")
    assert_same_weights(run.model(4000), whole.model(4000))
    assert run.last_measurements() == whole.last_measurements()
    seconds = [row["seconds"] for row in run.measurements()]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < HOUR
    first, second = (session["began"] for session in run.record["sessions"])
    assert first < second < run.record["ended"]
    with Database.open(f"sqlite:///{workspace.path / 'lr.sqlite'}") as database:
        (stored,) = database.runs(source="measured")
    assert (stored.status, stored.ended) == ("finished", run.record["ended"])
