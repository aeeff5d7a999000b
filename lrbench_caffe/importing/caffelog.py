"""Runs from Caffe's own logs: the stderr of `caffe train`, and the caffe_output.log of a DIGITS job.

A log tells the solver's parameters, the nets with the shapes of their blobs, the tests, the
displayed losses and LRs, and how it ended. What it does not tell is None: the metrics AC, CD and
CDAC, and what only the data set's files would say, unless they are still where the log says (see
``runreader`` and ``measurements``).

- A log with several runs gives as many records; one that was resumed in it, or in another log, is
  one run.
- What cannot be read is left out and said: a damaged line, a fork's field, the end of a net that
  glog cut.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from lrbench_caffe.database.checks import with_storable_text
from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.runreader import Note, RunReader, files_of
from lrbench_caffe.importing.sessions import LogSession, runs_of, sessions_of
from lrbench_caffe.importing.text import Log, read_log
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.plaintext import shortened
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.records import RunRecord
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.tabular import count_of

LONGEST_REASON = 200  # characters of another library's words
_OUR_POLICY = re.compile(r"Learning Rate Policy: (\w+\(.*)")  # Caffe's own have a name only
_OUR_NET = re.compile(r"net file: (\S.*)[/\\]prototxt[/\\]net\.prototxt")


def records_from_log(
    path: Path,
    messages: Messages | None = None,
    *,
    solver_file: Path | None = None,
    note: Note | None = None,
) -> list[RunRecord]:
    """The runs in a log. The same log gives the same uids, wherever it is.

    Args are those of ``records_from_logs``.

    Raises:
        InputError: as ``records_from_logs`` refuses a log.
    """
    refused: list[InputError] = []
    say = note or (lambda text: None)
    records = records_from_logs(
        [path], messages, solver_file=solver_file, note=say, refuse=refused.append
    )
    if not records:
        raise refused[0]
    return [record for _, record in records]


def records_from_logs(
    paths: Sequence[Path],
    messages: Messages | None = None,
    *,
    solver_file: Path | None = None,
    note: Note,
    refuse: Callable[[InputError], None],
) -> list[tuple[str, RunRecord]]:
    """The runs in logs. glog begins a file for each process, so one training may be in several of them.

    Args:
        paths: the logs, in any order; they may be packed by gzip, bzip2 or xz.
        messages: Caffe's messages; by default those of this machine's Caffe.
        solver_file: for a log whose beginning is lost: its solver.prototxt. By default a solver.prototxt
            beside the log, as DIGITS has it, is used.
        note: called with each line that a person should know: what was left out, or taken from
            elsewhere.
        refuse: called where a file cannot be read, holds no training, or holds one that cannot be
            understood (the message names file and line); or there is no Caffe.

    Returns:
        Each run with the logs that it is in, for messages. Names that no database keeps are written
        with escapes in it, as a training records them.
    """
    files, messages = _read_sessions(paths, messages, note, refuse)
    if messages is None:
        return []
    records: list[tuple[str, RunRecord]] = []
    read: set[Path] = set()
    left_out: list[tuple[Path, InputError]] = []
    for run in runs_of([session for sessions in files for session in sessions]):
        record = _read_run(run, messages, solver_file, note)
        if isinstance(record, InputError):
            left_out.append((run[-1].path, record))
        else:
            records.append((files_of(run), record))
            read.update(session.path for session in run)
    for path, reason in left_out:
        if path in read:
            note(f"{path}: one training of several is left out: {reason}")
        else:
            refuse(reason)
    return records


def _read_sessions(
    paths: Sequence[Path],
    messages: Messages | None,
    note: Note,
    refuse: Callable[[InputError], None],
) -> tuple[list[list[LogSession]], Messages | None]:
    """The sessions of each log, in the order in which they began, and Caffe's messages.

    The messages are looked for when there is a session to read: it takes a Caffe.
    """
    files: list[list[LogSession]] = []
    seen: set[tuple[tuple[str, ...], ...]] = set()
    for path in paths:
        try:
            sessions = _sessions(path, seen, note)
            if sessions:
                if messages is None:
                    messages = _messages()
                files.append(sessions)
        except InputError as error:
            refuse(error)
        except OSError as error:
            refuse(InputError(f"{path}: {error}"))
        except Exception as error:
            refuse(_not_understood(f"{path}", error))
    files.sort(key=lambda sessions: sessions[0].began)
    return files, messages


def _read_run(
    run: list[LogSession], messages: Messages, solver_file: Path | None, note: Note
) -> RunRecord | InputError:
    """The record of a training, or why there is none."""
    last = run[-1]
    try:
        record = RunReader(last.path, messages, solver_file, note).record(run)
        return with_storable_text(record)
    except InputError as error:
        return error
    except (OSError, PolicyError) as error:
        return InputError(f"{last.path}: {error}")
    except Exception as error:
        return _not_understood(f"{last.path}:{last.line}", error)


def _not_understood(place: str, error: Exception) -> InputError:
    """The error for damage that no check has foreseen: one log must not end the others."""
    return InputError(
        f"{place}: what is printed here cannot be understood ({type(error).__name__}: "
        f"{shortened(str(error), LONGEST_REASON)}); if the log is "
        "not damaged, please report it"
    )


def _sessions(path: Path, seen: set[tuple[tuple[str, ...], ...]], note: Note) -> list[LogSession]:
    """The sessions of a log that trained; none where it was read before, maybe under another name.

    Raises:
        InputError: it cannot be read, or holds no training.
    """

    def say(text: str) -> None:
        note(f"{path}: {text}")

    log = read_log(path, say)
    keys = tuple(message.key for message in log.messages)
    if keys and keys in seen:
        say("the same log as an earlier one; it is read once")
        return []
    seen.add(keys)
    _refuse_our_own(path, log)
    begun = sessions_of(log)
    sessions = [session for session in begun if session.trained]
    if not sessions:
        raise InputError(f"{path}: {_why_none(log, begun)}")
    _say_damaged(sessions, say)
    return sessions


# -- logs without a training -----------------------------------------------------------------------


def _refuse_our_own(path: Path, log: Log) -> None:
    """A run directory's caffe.log does not tell its policy: to Caffe, the LR was fixed."""
    for message in log.messages:
        policy = _OUR_POLICY.search(message.text)
        if policy:
            nets = (_OUR_NET.search(earlier.text) for earlier in log.messages)
            folder = next((net[1] for net in nets if net), path.parent)
            raise InputError(
                f"{path}:{message.line}: the log of a training by lrbench_caffe with {policy[1]}; "
                f"import its run directory instead: db sync {shlex.quote(str(folder))}"
            )


def _why_none(log: Log, sessions: list[LogSession]) -> str:
    if any(
        re.match(r"(?:Batch \d+, |Running for \d+ iterations)", message.text)
        for message in log.messages
    ):
        return "no training in it: it is the log of `caffe test`"
    if any("Average Forward pass" in message.text for message in log.messages):
        return "no training in it: it is the log of `caffe time`"
    fatal = next((session.fatal for session in sessions if session.fatal), None)
    if fatal is not None:
        return f"no training in it: Caffe ended before the first iteration: {fatal}"
    if sessions and any(session.solver for session in sessions):
        return "no training in it: it ends before the first iteration (no line with 'Iteration N')"
    if not log.messages:
        return "no training in it: no line has Caffe's form, I1124 21:04:52.367612 32011 solver.cpp:197] TEXT"
    return "no training in it (no line with 'Iteration N')"


def _say_damaged(sessions: list[LogSession], say: Note) -> None:
    damaged = sorted(line for session in sessions for line in session.damaged)
    if damaged:
        number, text = damaged[0]
        first = f"the first is line {number}: {text[:80]!r}"
        say(f"{count_of(len(damaged), 'damaged line')} left out; {first}")


def _messages() -> Messages:
    python = find_caffe_python(None)
    return Messages(caffe_info(python).descriptor, CaffeReader(python))
