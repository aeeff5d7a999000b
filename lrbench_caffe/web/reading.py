"""Reads an uploaded solver in a process of its own, whose time and memory are bounded.

The process gets the texts on its standard input and writes the task on its standard output. It
opens no file that they name; where this machine has a Caffe, its descriptor is used, and Caffe's
own functions read what the driver's parser cannot (nets of older formats).
"""

from __future__ import annotations

import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.plaintext import shortened
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.uploads import SolverTexts, ToldTraining, told_training
from lrbench_caffe.records import (
    Dataset,
    Framework,
    Network,
    SolverSettings,
    Start,
    Task,
)
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.known import known_caffe
from lrbench_caffe.runtime.locate import VARIABLE, CaffePython, find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.settings import MIB

SECONDS = 5  # of the CPU
DEADLINE = 20.0  # seconds by which it must have ended, on a machine that is busy
MEMORY = 2048 * MIB  # addresses, most of which Caffe's libraries take without using them
AT_ONCE = threading.BoundedSemaphore(2)
LONGEST = 500  # characters of a message: names may be as long as the text
WAIT = 5.0  # seconds that a request waits for its turn


def read_training(
    texts: SolverTexts, data: Dataset, max_iter: int | None, head: str | None
) -> ToldTraining:
    """What an uploaded solver would train (see ``prototxt.uploads.told_training``).

    Raises:
        InputError: a text is wrong, or takes too long to read.
        Refused: others are being read.
    """
    request = {
        **{name: _coded(text) for name, text in vars(texts).items()},
        "data": asdict(data),
        "max_iter": max_iter,
        "head": head,
        "caffe_python": local_caffe(),
    }
    if not AT_ONCE.acquire(timeout=WAIT):
        raise Refused(503, "other solvers are being read; try again later", WAIT)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=DEADLINE,
        )
    except subprocess.TimeoutExpired:
        raise InputError(_TOO_MUCH) from None
    finally:
        AT_ONCE.release()
    if done.returncode != 0:
        raise InputError(_TOO_MUCH)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    return _training(answer)


_TOO_MUCH = (
    f"the solver and its nets take too long or too much memory to read; allowed: {SECONDS} s, "
    f"{MEMORY // MIB} MiB"
)


@cache
def local_caffe() -> str | None:
    """The interpreter of this machine's Caffe; None without one that works."""
    try:
        python = find_caffe_python(None)
        caffe_info(python)
    except LRBenchError:
        return None
    return python.command[0]


def _coded(text: bytes | None) -> str | None:
    return None if text is None else base64.b64encode(text).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _training(answer: dict[str, Any]) -> ToldTraining:
    task, start = answer["task"], Start(**answer["start"])
    parts = {"framework": Framework, "dataset": Dataset, "network": Network}
    whole = Task(
        **{name: make(**task[name]) for name, make in parts.items()}, task_type=task["task_type"]
    )
    settings = SolverSettings(**answer["solver"])
    lengths = answer["max_iter"], answer["epoch"]
    return ToldTraining(whole, start, settings, *lengths, tuple(answer["notes"]))


# -- the process -----------------------------------------------------------------------------------


def main() -> int:
    """Answer the request on the standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(10)  # whoever only looks at pages comes first
    request = json.load(sys.stdin)
    try:
        answer = asdict(_told(request))
    except LRBenchError as error:
        of_page = str(error).partition(f"; {VARIABLE} or ")[0]  # no remedy for who sees a page
        answer = {"error": shortened(of_page, LONGEST)}
    except RecursionError:
        answer = {"error": "the solver or its net has messages that are nested too deeply"}
    # Names need not be UTF-8 to Caffe, but have to be in a page.
    text = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    sys.stdout.buffer.write(text)
    return 0


def _told(request: dict[str, Any]) -> ToldTraining:
    texts = SolverTexts(
        *(_decoded(request[name]) for name in ("solver", "net", "test_net"))  # type: ignore[arg-type]
    )
    info, ask = known_caffe(), None
    if request["caffe_python"]:
        python = CaffePython([request["caffe_python"]], "this machine")
        info, reader = caffe_info(python), CaffeReader(python)

        def ask(kind: str, text: bytes) -> bytes | None:
            with tempfile.TemporaryDirectory(prefix="lrbench-") as folder:
                file = Path(folder) / f"{kind}.prototxt"
                file.write_bytes(text)
                try:
                    return reader(kind, file)
                except InputError as error:
                    raise InputError(str(error).replace(str(file), file.name)) from error

    return told_training(
        texts,
        Dataset(**request["data"]),
        Messages(info.descriptor),
        info,
        ask=ask,
        max_iter=request["max_iter"],
        head=request["head"],
    )


if __name__ == "__main__":
    sys.exit(main())
