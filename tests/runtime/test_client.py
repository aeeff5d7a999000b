"""The driver's hold on a worker: what it asks and gets, and what it says when the worker comes to grief."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.errors import InputError, LRBenchError, PassingError, TrainingError
from lrbench_caffe.files import temporary_of
from lrbench_caffe.metrics import Counts
from lrbench_caffe.runtime import client
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.failures import Refusal, last_made, last_words
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.liveness import Silence
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.runtime.replies import HeadRequest, LayerParameters, OpenRequest, TestPass

BATCHES = [
    {"scores": [[1.5, 2.5], [0.0, -1.0]], "labels": [1, 0], "loss": 0.5},
    {"scores": [[-3.0, 2.0], [7.0, 1.0]], "labels": [0, 1], "loss": 1.5},
]


@pytest.fixture
def worker(fake_python, tmp_path):
    """``worker(options)``: a worker of the fake caffe with a loaded solver."""
    made = []

    def worker(options=None, *, version="", **request) -> Worker:
        (tmp_path / "solver.json").write_text(json.dumps(options or {}))
        made.append(Worker(fake_python(version), tmp_path / "caffe.log"))
        made[-1].open(OpenRequest(str(tmp_path / "solver.json"), stop=1000, **request))
        return made[-1]

    yield worker
    for one in made:
        one.kill()


def train(worker: Worker, count: int, wants_pause=lambda: False) -> tuple[dict[int, float], int]:
    losses: dict[int, float] = {}

    def on_losses(start: int, values: np.ndarray) -> None:
        losses.update(enumerate(values.tolist(), start))

    return losses, worker.run(np.full(count, 0.5), on_losses, wants_pause)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# -- requests --------------------------------------------------------------------------------------


def test_hello_and_open(fake_python, tmp_path):
    (tmp_path / "solver.json").write_text(json.dumps({"iter": 5, "test_batches": [BATCHES]}))
    with Worker(fake_python(), tmp_path / "caffe.log") as worker:
        assert worker.info.descriptor == (tmp_path / "descriptor").read_bytes()
        assert (worker.info.caffe, worker.info.writable_base_lr) == ("1.0.0-fake", True)
        opened = worker.open(OpenRequest(str(tmp_path / "solver.json"), stop=10))
        net = [
            LayerParameters("data", (), ()),
            LayerParameters("ip", (0, 1), ((2,), (1,))),
            LayerParameters("loss", (), ()),
        ]
        assert (opened.parameters, opened.nets) == (3, [net, net])
        assert opened.test_shapes == [{"s": [2, 2], "y": [2], "loss": [1]}]
        assert worker.load() == 5
        assert worker.load("x_iter_1000.solverstate") == 1000
        pid = worker.pid
    assert ended(pid)


def test_train_test_replay_snapshot_and_log(worker, tmp_path):
    one = worker({"test_batches": [BATCHES]})
    assert train(one, 3) == ({0: 0.0, 1: 1.0, 2: 2.0}, 3)
    head = HeadRequest("s", "y", {"form": "logits", "axis": 1})
    outcome = one.test(
        0, 2, [head, HeadRequest("s", "y", {"form": "logits", "axis": 0, "ignore_label": 1})]
    )
    assert outcome is not None
    assert (outcome.outputs, outcome.loss) == ({"loss": [1.0]}, 1.0)
    counts, other = outcome.heads
    assert isinstance(counts, Counts) and isinstance(other, Counts)
    assert (counts.samples, counts.top1, counts.count.tolist()) == (4, 2, [1, 1])
    assert other.samples == 2  # of the four labels two are 1
    assert one.test(0, 1) == TestPass({"loss": [0.5]}, 0.5)
    assert one.test(0, 10**6, wants_stop=lambda: True) is None
    assert one.forward() == 2.0  # the stand-in keeps the loss of its last update
    one.replay([{"net": 0, "layers": [["data", 0]], "passes": 3}], lambda done, total: None)
    endless = [{"net": 0, "layers": [["data", 0]], "passes": 10**9}]
    with_test = [*endless, {"net": 1, "layers": [["data", 0]], "passes": 1}]
    one.replay(with_test, lambda done, total: None, wants_stop=lambda: True)
    one.write_log("all is well")
    assert one.snapshot() == 3
    one.close()
    log = (tmp_path / "caffe.log").read_text()
    assert log.count("event: train forward 0 to 0\n") >= 3
    assert "event: test0 forward 0 to 0\n" not in log  # the replay that was stopped
    assert "event: log all is well\n" in log


def test_pause(worker):
    one = worker({"seconds": 0.02})
    seen: list[int] = []

    def wants_pause() -> bool:
        seen.append(1)
        return True

    losses, iteration = train(one, 900, wants_pause)
    assert 0 < iteration < 200
    assert losses == {i: float(i) for i in range(iteration)}  # all that were trained were heard of
    assert train(one, 1) == ({iteration: float(iteration)}, iteration + 1)


def test_a_pause_that_comes_before_the_first_update(worker):
    one = worker({"pause_before_first": 0.5})
    losses, iteration = train(one, 900, lambda: True)
    assert losses == {i: float(i) for i in range(iteration)}
    assert iteration < 10
    assert train(one, 1)[1] == iteration + 1


def test_a_slow_iteration_is_no_hang_when_the_limit_is_longer(worker):
    one = worker({"seconds": 0.6})
    one.hang_seconds = 60.0
    assert train(one, 2)[1] == 2


# -- death -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            "abort",
            r"^Caffe was killed by SIGABRT: math_functions\.cu:28\] Check failed: error == cudaSuccess "
            r"\(2 vs\. 0\) full$",
        ),
        ("exit", "^Caffe ended with exit code 7"),
        ("SIGKILL", "^Caffe was killed by SIGKILL, by another process: "),
        ("SIGSEGV", "^Caffe was killed by SIGSEGV"),
        ("raise", "^RuntimeError: layer 'ip' has had enough$"),
    ],
)
def test_a_death_in_training(worker, trouble, message):
    one = worker({"trouble_at": 3, "trouble": trouble})
    with pytest.raises(TrainingError, match=message):
        train(one, 10)
    one.kill()
    assert ended(one.pid)
    with pytest.raises(TrainingError):
        one.snapshot()


def test_losses_before_a_death_are_heard_of(worker):
    one = worker({"trouble_at": 12, "trouble": "SIGKILL", "seconds": 0.05})
    losses: dict[int, float] = {}
    with pytest.raises(TrainingError):
        one.run(
            np.full(50, 0.5), lambda start, values: losses.update(enumerate(values.tolist(), start))
        )
    assert len(losses) >= 5
    assert losses == {i: float(i) for i in range(len(losses))}


def test_a_failed_check_while_the_solver_is_loaded(worker):
    with pytest.raises(
        TrainingError, match=r"^Caffe was killed by SIGABRT: math_functions\.cu:28\] Check failed"
    ):
        worker({"trouble": "open"})


def test_killed_from_outside_between_two_requests(worker):
    one = worker()
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"^Caffe was killed by SIGKILL"):
        one.snapshot()


def test_a_kill_for_memory_says_so(worker, monkeypatch):
    """Linux counts them; here the count rises while the worker dies."""
    one = worker()
    kills = client.memory_kills()
    monkeypatch.setattr(client, "memory_kills", lambda: kills + 1)
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(
        TrainingError,
        match=r"^Caffe was killed by SIGKILL: Linux kills processes when memory runs out",
    ):
        one.snapshot()


def test_a_hang_is_ended(worker):
    one = worker({"trouble_at": 2, "trouble": "hang"})
    one.hang_seconds = 0.5  # not before: that a solver is opened takes its time
    with pytest.raises(
        TrainingError,
        match=r"^Caffe gave no sign of life for 0\.5 s and was killed .* hang_seconds SECONDS\)$",
    ):
        train(one, 5)
    assert ended(one.pid)


@pytest.fixture
def continue_later(monkeypatch) -> Callable[[int], threading.Timer]:
    """Starts a timer that lets a stopped process continue, after three times what is a hang here.

    From then on it may be silent for long, as the machine may be busy.
    """
    watches: list[Silence] = []

    class Watched(Silence):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            watches.append(self)

    def continue_(pid: int) -> None:
        for watch in watches:
            watch._limit = 600.0
        os.kill(pid, signal.SIGCONT)

    def start(pid: int) -> threading.Timer:
        timer = threading.Timer(1.5, continue_, [pid])
        timer.start()
        return timer

    monkeypatch.setattr(client, "Silence", Watched)
    return start


def test_a_stopped_process_is_waited_for(worker, continue_later):
    """And it is said once."""
    notes: list[str] = []
    one = worker()
    one.hang_seconds, one._note = 0.5, notes.append
    os.kill(one.pid, signal.SIGSTOP)
    timer = continue_later(one.pid)
    losses, reached = train(one, 1)
    timer.join()
    one.hang_seconds = 600.0
    assert (losses, reached) == ({0: 0.0}, 1)
    assert notes == [f"Caffe is stopped (process {one.pid}): waiting until it continues"]
    assert train(one, 4)[1] == 5


def test_a_stopped_process_that_reads_nothing_is_waited_for(worker, continue_later):
    """The LRs of a million iterations are more than a pipe holds."""
    one = worker({"trouble_at": 2, "trouble": "SIGKILL"})
    one.hang_seconds = 0.5
    os.kill(one.pid, signal.SIGSTOP)
    timer = continue_later(one.pid)
    with pytest.raises(TrainingError, match="^Caffe was killed by SIGKILL"):
        train(one, 1_000_000)
    timer.join()


def test_last_words_are_those_of_this_process(fake_python, tmp_path):
    log = tmp_path / "caffe.log"
    log.write_text("F1124 20:55:10.588922 24205 old.cpp:1] Check failed: in another session\n")
    (tmp_path / "solver.json").write_text(json.dumps({"trouble_at": 0, "trouble": "SIGKILL"}))
    with pytest.raises(TrainingError) as caught, Worker(fake_python(), log) as one:
        one.open(OpenRequest(str(tmp_path / "solver.json"), stop=5))
        train(one, 5)
    assert "another session" not in str(caught.value)
    assert log.read_text().startswith("F1124")  # the log goes on, it is not begun anew


DRIVER = """
import sys, time
from pathlib import Path
from lrbench_caffe.runtime.client import OpenRequest, Worker
from lrbench_caffe.runtime.locate import CaffePython
folder = Path(sys.argv[1])
worker = Worker(CaffePython(sys.argv[2:], "a fake"), folder / "caffe.log")
worker.open(OpenRequest(str(folder / "solver.json"), stop=1000))
print(worker.pid, flush=True)
import numpy
worker.run(numpy.ones(500), lambda start, losses: None)
"""


def test_no_worker_outlives_its_driver(fake_python, tmp_path):
    # The worker is in a long iteration, so that it cannot notice a closed pipe.
    (tmp_path / "solver.json").write_text(json.dumps({"trouble_at": 1, "trouble": "hang"}))
    command = [sys.executable, "-c", DRIVER, str(tmp_path), *fake_python().command]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as driver:
        assert driver.stdout
        pid = int(driver.stdout.readline())
        deadline = time.monotonic() + 10
        while "update 0" not in (tmp_path / "caffe.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.kill()
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Ended, though perhaps nobody has asked yet how (an orphan's zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


# -- wrong interpreters ----------------------------------------------------------------------------


def test_an_interpreter_without_caffe(tmp_path):
    python = CaffePython([sys.executable, "-S"], "caffe_python")
    with pytest.raises(
        InputError, match=r" \(caffe_python\): cannot import caffe: No module named "
    ):
        Worker(python, tmp_path / "caffe.log")


@pytest.mark.parametrize(("program", "code"), [("false", 1), ("true", 0)])
def test_a_program_that_is_no_python(tmp_path, program, code):
    with pytest.raises(
        PassingError, match=rf"^{program} \(the user\): Caffe ended with exit code {code}$"
    ):
        Worker(CaffePython([program], "the user"), tmp_path / "caffe.log")


def test_a_caffe_that_cannot_be_loaded_for_lack_of_memory_is_not_a_wrong_interpreter(tmp_path):
    """As the dynamic linker says it."""
    words = "libcaffe.so: failed to map segment from shared object"
    message = protocol.MAGIC + protocol.pack("error", text=f"cannot import caffe: {words}")
    (tmp_path / "hello").write_bytes(message)
    with pytest.raises(TrainingError, match=f"^sh .*: cannot import caffe: {words}$"):
        Worker(shell(f"cat {tmp_path / 'hello'}"), tmp_path / "caffe.log")


def test_no_such_program(tmp_path):
    with pytest.raises(
        InputError, match=r"^cannot start /nonexistent/python: No such file or directory$"
    ):
        Worker(CaffePython(["/nonexistent/python"], "the user"), tmp_path / "caffe.log")


@pytest.mark.parametrize(
    ("script", "kind", "how"),
    [
        ("kill -KILL $$", TrainingError, "was killed by SIGKILL, by another process"),
        ("kill -TERM $$", TrainingError, "was killed by SIGTERM"),
        (
            "exit 137",
            TrainingError,
            "was killed by SIGKILL",
        ),  # what a shell makes of a killed child
        (
            "echo 'F1 Cannot allocate memory' >&2; kill -ABRT $$",
            TrainingError,
            "was killed by SIGABRT",
        ),
        ("kill -ABRT $$", TrainingError, "was killed by SIGABRT"),
        ("kill -SEGV $$", TrainingError, "was killed by SIGSEGV"),
        ("kill -BUS $$", TrainingError, "was killed by SIGBUS"),
        (
            "exit 127",
            InputError,
            "ended with exit code 127",
        ),  # what a shell makes of a missing program
        (
            "echo 'sh: 4: Cannot fork' >&2; exit 2",
            TrainingError,
            "ended with exit code 2: sh: 4: Cannot",
        ),
    ],
)
def test_a_signal_while_caffe_is_imported_is_not_a_wrong_interpreter(tmp_path, script, kind, how):
    with pytest.raises(LRBenchError, match=rf"^sh \(the user\): Caffe {how}") as caught:
        Worker(shell(script), tmp_path / "caffe.log")
    assert isinstance(caught.value, kind)


@pytest.mark.parametrize("code", [1, 2, 126, 127, 255])
def test_an_interpreter_that_has_started_caffe_before_is_not_a_wrong_one(tmp_path, code):
    with pytest.raises(
        TrainingError, match=rf"^sh \(the user\): Caffe ended with exit code {code}$"
    ):
        Worker(shell(f"exit {code}"), tmp_path / "caffe.log", known=True)


def test_an_interpreter_that_has_lost_its_caffe_is_a_wrong_one(tmp_path):
    """It says so itself, as after a change of the environment."""
    with pytest.raises(InputError, match=": cannot import caffe: No module named "):
        Worker(CaffePython([sys.executable, "-S"], "the user"), tmp_path / "caffe.log", known=True)


def test_a_kill_while_a_prototxt_is_read_is_not_the_prototxts_fault(
    fake_python, tmp_path, monkeypatch
):
    def killed(worker, message, path):
        os.kill(worker.pid, signal.SIGKILL)
        return read(worker, message, path)

    read = Worker.read
    monkeypatch.setattr(Worker, "read", killed)
    with pytest.raises(TrainingError, match="^Caffe was killed by SIGKILL"):
        CaffeReader(fake_python())("NetParameter", tmp_path / "net.prototxt")


@pytest.mark.parametrize("crash", ["SEGV", "BUS", "ABRT", "ILL"])
def test_a_crash_while_a_prototxt_is_read_is_the_prototxts_fault_if_it_comes_again(
    fake_python, tmp_path, monkeypatch, crash
):
    def crashes(worker, message, path):
        if crashes.left:
            crashes.left -= 1
            os.kill(worker.pid, signal.Signals[f"SIG{crash}"])
        return read(worker, message, path)

    read = Worker.read
    monkeypatch.setattr(Worker, "read", crashes)
    net = tmp_path / "net.prototxt"
    crashes.left = 1
    assert CaffeReader(fake_python())("NetParameter", net) is None  # the stand-in has no reader
    crashes.left = 3
    with pytest.raises(InputError, match=f"^{net}: Caffe was killed by SIG{crash}$"):
        CaffeReader(fake_python())("NetParameter", net)
    assert crashes.left == 1


def test_a_caffe_that_is_too_old(fake_python, tmp_path):
    with pytest.raises(
        InputError,
        match=r"\(version ancient\) has no solver callbacks in Python; Caffe 1.0 or newer",
    ):
        Worker(fake_python("ancient"), tmp_path / "caffe.log")


def shell(script: str, *arguments: str) -> CaffePython:
    """A wrapper script around an interpreter; the worker's file is its last argument."""
    return CaffePython(["sh", "-c", script, "sh", *arguments], "the user")


@pytest.mark.parametrize(
    ("banner", "text"),
    [
        ("echo Loading module", "Loading module"),
        ("echo; echo hi", "hi"),
        ("printf 'no line break '", "no line break"),
        (r"printf '\377\n'", "\ufffd"),
        ("printf '%0300d' 0", "0" * 200),
    ],
)
def test_a_wrapper_that_prints_on_stdout(fake_python, tmp_path, banner, text):
    python = shell(f'{banner}; exec "$@"', *fake_python().command)
    expected = re.escape(
        f"sh (the user): printed {text!r} on stdout where the worker's hello was expected"
    )
    with pytest.raises(InputError, match=f"^{expected}"):
        Worker(python, tmp_path / "caffe.log")


@pytest.mark.parametrize(
    "content",
    [
        b"Load",  # as a length: 1.3 GB
        b"\0\0\0\4nope",
        b"\0\0\0\4null",
        b"\0\0\0\2{}",
        b'\0\0\0\16{"arrays": []}',
        b'\0\0\0\40{"kind": "hello", "arrays": [] }',
        b'\0\0\0\50{"kind": "hello", "arrays": [["a", 1]]}',
        b'\0\0\0\57{"kind":"hello", "arrays": [["a", "<f8", [-1]]]}',
        b"\0\0\0\2\xff\xff",
    ],
)
def test_a_hello_that_is_none(tmp_path, content):
    (tmp_path / "hello").write_bytes(protocol.MAGIC + content + b" " * 20)
    python = shell(f"cat {tmp_path / 'hello'}; exec sleep 20")
    with pytest.raises(InputError, match=r"^sh \(the user\): sent an invalid message"):
        Worker(python, tmp_path / "caffe.log")


def test_garbage_in_a_training_is_the_trainings_failure(worker):
    one = worker()
    reading, writing = os.pipe()
    os.write(writing, b"\0\0\0\4nope")
    os.dup2(reading, one._stdout)
    with pytest.raises(TrainingError, match="^sent an invalid message"):
        train(one, 1)
    os.close(reading)
    os.close(writing)


def test_an_interpreter_that_hangs_where_no_option_sets_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.runtime.info.HELLO_SECONDS", 0.3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        TrainingError, match=r"^sh .*Caffe gave no sign of life for 0\.3 s and was killed$"
    ):
        caffe_info(shell("exec sleep 20"))


# -- last words ------------------------------------------------------------------------------------

STACK = """*** Check failure stack trace: ***
    @     0x7f5d9a6a71c3  google::LogMessage::Fail()
    @     0x7f5d9a6ac25b  google::LogMessage::SendToLog()
    @     0x7f5d9a6a6ebf  google::LogMessage::Flush()
    @     0x7f5d9a6a76ef  google::LogMessageFatal::~LogMessageFatal()
    @     0x7f5d9ae0ec5a  caffe::db::LMDB::Open()
"""
ROUTINE = """WARNING: Logging before InitGoogleLogging() is written to STDERR
I1124 20:55:10.577719 24205 solver.cpp:45] Initializing solver from parameters:
base_lr: 0.1
display: 20
I1124 20:55:10.588011 24205 net.cpp:53] Creating Layer data
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            ROUTINE
            + "F1124 20:55:10.588922 24205 db_lmdb.hpp:15] Check failed: mdb_status == 0 (2 vs. 0) No file\n"
            + STACK,
            "db_lmdb.hpp:15] Check failed: mdb_status == 0 (2 vs. 0) No file",
        ),
        # glog of 2022 writes the year, too.
        (
            "F20221124 20:55:10.588922 24205 blob.cpp:32] Check failed: shape[i] >= 0 (-1 vs. 0) \n"
            + STACK,
            "blob.cpp:32] Check failed: shape[i] >= 0 (-1 vs. 0)",
        ),
        # A message with a line break in it, and a library's word between message and trace.
        (
            "F1124 20:55:10.588922   205 layer_factory.hpp:81] Check failed: registry.count(type) == 1 "
            "(0 vs. 1) Unknown layer type: Mine\n  (known types: AbsVal, Accuracy)\n" + STACK,
            "layer_factory.hpp:81] Check failed: registry.count(type) == 1 (0 vs. 1) "
            "Unknown layer type: Mine (known types: AbsVal, Accuracy)",
        ),
        # The last check is the one that ended it.
        (
            "F1124 20:55:10.588922 205 a.cpp:1] Check failed: first\n"
            "F1124 20:55:11.588922 205 b.cpp:2] Check failed: second\n" + STACK,
            "b.cpp:2] Check failed: second",
        ),
        # No check: a Python layer's traceback, an allocator, ...
        (
            ROUTINE + 'Traceback (most recent call last):\n  File "layer.py", line 3, in forward\n'
            "ValueError: my layer is unhappy\n",
            "ValueError: my layer is unhappy",
        ),
        (
            ROUTINE + "terminate called after throwing an instance of 'std::bad_alloc'\n"
            "  what():  std::bad_alloc\n",
            "what():  std::bad_alloc",
        ),
        # The solver that Caffe prints at its start is no last word.
        (ROUTINE, ""),
        ("", ""),
    ],
)
def test_last_words(tmp_path, log, expected):
    path = tmp_path / "caffe.log"
    path.write_text(log)
    assert last_words(path) == expected


def test_last_words_of_a_long_log(tmp_path):
    path = tmp_path / "caffe.log"
    path.write_text(
        "noise\n" * 50_000 + "F1124 20:55:10.588922 205 a.cpp:1] Check failed: at last\n" + STACK
    )
    assert last_words(path) == "a.cpp:1] Check failed: at last"


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "caffe.log"
    path.write_bytes(b"\xff\xfe\n" + b"F1124 20:55:10.588922 205 a.cpp:1] Check failed: \xff\n")
    assert last_words(path) == "a.cpp:1] Check failed: \ufffd"


OPENING = """I1124 20:55:10.577719 24205 solver.cpp:102] Creating training net from net file: net.prototxt
I1124 20:55:10.577719 24205 net.cpp:53] Initializing net from parameters:
I1124 20:55:10.577719 24205 layer_factory.hpp:77] Creating layer data
I1124 20:55:10.577719 24205 net.cpp:86] Creating Layer data
I1124 20:55:10.577719 24205 net.cpp:86] Creating Layer my ip
"""
TESTS = """I1124 20:55:10.577719 24205 solver.cpp:190] Creating test net (#1) specified by test_net file: t
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", (None, [])),
        (OPENING, (0, ["data", "data", "my ip"])),
        (OPENING + TESTS, (2, [])),
        (OPENING + TESTS + "I1 net.cpp:86] Creating Layer acc\n", (2, ["acc"])),
        (
            OPENING + "I1124 20:55:10.577719 24205 solver.cpp:57] Solver scaffolding done.\n",
            (None, []),
        ),
    ],
)
def test_what_was_made_last(tmp_path, log, expected):
    path = tmp_path / "caffe.log"
    path.write_text("of an earlier session: ] Creating Layer old\n" + log)
    assert last_made(path, len("of an earlier session: ] Creating Layer old\n")) == expected


@pytest.mark.parametrize(
    ("check", "refused"),
    [
        ("filler.hpp:294] Check failed: false Unknown filler name: he", True),
        (
            "net.cpp:143] Check failed: param_size <= 2 (3 vs. 2) Too many params for layer cuda1",
            True,
        ),
        ("syncedmem.cpp:71] Check failed: error == cudaSuccess (2 vs. 0)  out of memory", False),
        ("common.cpp:114] Check failed: status == CUBLAS_STATUS_SUCCESS (1 vs. 0)", False),
        ("syncedmem.hpp:25] Check failed: *ptr host allocation of size 99999999999 failed", False),
        ("db_lmdb.hpp:15] Check failed: mdb_status == 0 (12 vs. 0) Cannot allocate memory", False),
    ],
)
def test_a_failed_check_is_a_refusal_unless_the_machine_is_to_blame(tmp_path, check, refused):
    log = tmp_path / "caffe.log"
    fields = {"protocol": protocol.PROTOCOL, "callbacks": True, "python": "3", "executable": "sh",
              "caffe": "1.0", "path": "", "layers": [], "writable_base_lr": True, "layer_callbacks": True,
              "cuda": False, "gpus": 0, "blas": [], "files": []}  # fmt: skip
    (tmp_path / "hello").write_bytes(
        protocol.MAGIC + protocol.pack("hello", [("descriptor", np.zeros(1, np.uint8))], **fields)
    )
    dies = (
        f"cat {tmp_path}/hello; head -c 1 >/dev/null; "
        f"echo 'F1124 20:55:10.588922 205 {check}' >&2; kill -ABRT $$"
    )
    with pytest.raises(TrainingError) as caught, Worker(shell(dies), log) as one:
        one.open(OpenRequest("solver.prototxt", stop=1))
    assert isinstance(caught.value, Refusal) == refused
    assert check.strip() in str(caught.value)


def test_no_log(tmp_path):
    assert last_words(tmp_path / "none") == ""


# -- what is remembered ----------------------------------------------------------------------------


def test_info_is_asked_again_where_it_cannot_be_trusted(fake_python, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    python = fake_python()
    # What a command left that was killed while it kept another one; no process has this number.
    left = temporary_of(tmp_path / "cache" / "lrbench_caffe" / "caffe-info" / "0123abcd.json")
    left = left.with_name(left.name.replace(f".{os.getpid()}", ".4194399"))
    left.parent.mkdir(parents=True)
    left.touch()
    assert caffe_info(python).caffe == "1.0.0-fake"
    assert not left.exists()
    # The fake has no libraries whose change would be noticed, so nothing may be believed from the
    # cache.
    (tmp_path / "descriptor").write_bytes(b"")
    assert caffe_info(python).descriptor == b""


def test_info_is_remembered_until_caffe_changes(caffe_info, tmp_path, monkeypatch):
    from lrbench_caffe.runtime import info as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = tmp_path / "libcaffe.so"
    library.touch()
    known = type(caffe_info)(**{**vars(caffe_info), "files": [str(library)]})
    asked = []

    class Never:
        def __init__(self, *_: object, **__: object) -> None:
            asked.append(1)
            self.info = known

        def close(self) -> None:
            pass

    monkeypatch.setattr(module, "Worker", Never)
    python = CaffePython(["some-python"], "the user")
    assert module.caffe_info(python) == module.caffe_info(python) == known
    assert len(asked) == 1
    assert module.caffe_info(python, fresh=True) == known
    assert len(asked) == 2
    os.utime(library, (1, 1))
    assert module.caffe_info(python) == known
    assert len(asked) == 3
    monkeypatch.setenv("PYTHONPATH", "/another/caffe")
    module.caffe_info(python)
    assert len(asked) == 4
    for file in Path(tmp_path).glob("lrbench_caffe/caffe-info/*"):
        file.write_text(re.sub("protocol", "protokoll", file.read_text()))
    module.caffe_info(python)
    assert len(asked) == 5
