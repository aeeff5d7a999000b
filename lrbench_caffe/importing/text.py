"""Splits a log's text into glog's messages, whatever a shell, terminal or container added.

A log reaches us through pipes: PowerShell writes UTF-16, terminals leave colour codes, containers
and MPI put something before each line, and a message that goes to two streams may be in the file
twice. Here it becomes a list of messages with the numbers of their lines. What cannot be read is
counted, not fatal.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import json
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.clock import Clock, Stamp

Note = Callable[[str], None]

# I1124 21:04:52.367612 32011 caffe.cpp:197] Use CPU.   Other programs may put something before it.
# The number behind the time is the thread's. The file may be a
# whole path of Windows, with drive and spaces. glog 0.6 and later write the year, too: I20221124.
_HEADER = re.compile(
    r"(?P<level>[IWEF])(?P<year>(?:19|20)\d\d)?(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01]) "
    r"(?P<time>(?:[01]\d|2[0-3]):[0-5]\d:[0-6]\d\.\d+)\s+(?P<thread>\d+) "
    r"(?P<place>(?:[A-Za-z]:)?[^:\[\]<>|*?\"\s](?:[^:\[\]<>|*?\"]{0,300}[^:\[\]<>|*?\"\s])?:\d+)\] ?"
)
_CREATED = re.compile(r"Log file created at: (\d{4})/(\d\d)/(\d\d)")
_DATE = re.compile(r"(?<!\d)(\d{4})[-/](\d\d)[-/](\d\d)(?!\d)")

# mpirun: "[2] I...", "[1,2]<stderr>:I..."; srun --label: "2: I..."
_RANK = re.compile(r"\s*(?:\[(?:\d+,)?(?P<mpi>\d{1,9})\](?:<std(?:err|out)>:)?|(?P<srun>\d{1,9}):)")

_PACKED = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ\0", lzma.decompress),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16 does
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ESCAPES = re.compile(
    r"(?:\x1b|\^\[)\[[0-?]*[ -/]*[@-~]"  # colours; "^[" where cat -v made text of the escape
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles of terminals
    r"|\x1b[@-Z\\-_]"
    r"|^\[\d+(?:;\d+)*m|\[0?m$"  # colours whose escape a web page lost
    r"|[\x00-\x08\x0b-\x1f\x7f\ufeff\ufffe]"
)
_SAMPLE = 20_000  # lines that show what a container puts before each
_MANY = 0.8  # share of messages that occur more than once, from which on the whole log is


@dataclass
class Message:
    """One message of glog, with the lines that belong to it.

    Attributes:
        line: number of its first line in the file.
        stamp: its date and time as printed.
        at: the same in seconds since 1970.
        thread: number of the thread that wrote it.
        level: "I", "W", "E" or "F".
        text: what its first line says; ``rest``: (number, text) of the lines after it.
        whole: False where another message begins in the same line, so that this one may be cut
            short.
    """

    line: int
    stamp: Stamp
    thread: str
    level: str
    place: str
    text: str
    rest: list[tuple[int, str]] = field(default_factory=list)
    whole: bool = True
    at: float = 0.0

    @property
    def key(self) -> tuple[str, ...]:
        return (self.stamp.text, self.thread, self.place, self.text)


@dataclass(frozen=True)
class Log:
    """A log's messages in their order, each once; ``processes``: how many of MPI wrote to it."""

    path: Path
    messages: list[Message]
    processes: int = 1


def read_log(path: Path, note: Note) -> Log:
    """The messages of a log; of the first process if MPI ran several.

    Args:
        path: the file; it may be packed by gzip, bzip2 or xz.
        note: called with what a person should know.

    Raises:
        InputError: the file cannot be read.
    """
    lines = [
        (number, _clean(line)) for number, line in enumerate(_without_cut_line(_text(path)), 1)
    ]
    lines, processes = _of_first_process(lines, note)
    lines = _each_once(lines, note)
    clock = Clock(path)
    messages = _messages(lines, clock)
    for message, at in zip(messages, clock.seconds([m.stamp for m in messages], note)):
        message.at = at
    return Log(path, _first_of_each(path, messages, note), processes)


def looks_like_a_log(beginning: bytes) -> bool:
    """Whether a file that begins like this is a log of Caffe, or of another program with glog."""
    return bool(_HEADER.search(_decoded(beginning))) and not beginning.lstrip().startswith(
        b'{"schema"'
    )


# -- from bytes to lines ---------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        for mark, unpack in _PACKED:
            if data.startswith(mark):
                data = unpack(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"cannot read {path}: not a complete compressed file: {error}") from error
    return _decoded(data)


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    sample = data[:4000]
    if len(sample) > 8 and sample[1::2].count(0) > len(sample) / 3:
        return data.decode("utf-16-le", "replace")
    if len(sample) > 8 and sample[::2].count(0) > len(sample) / 3:
        return data.decode("utf-16-be", "replace")
    return data.decode("utf-8", "replace")


def _without_cut_line(text: str) -> list[str]:
    """Its lines; without a last one that was cut short, whose number could be another one."""
    lines = re.split(r"\r*\n|\r", text) if "\r" in text else text.split("\n")
    last = lines.pop()
    if "Optimization Done" in last:
        lines.append(last)
    return lines


def _clean(line: str) -> str:
    """Without JSON around it, as Docker and others log, colours, and characters that are not text."""
    if line.startswith("{") and line.endswith("}") and '"' in line:
        with contextlib.suppress(ValueError, AttributeError):
            record = json.loads(line)
            text = next((record[key] for key in ("log", "message", "msg") if key in record), None)
            if isinstance(text, str):
                line = f"{record.get('time', '')} {text}".strip("\r\n")
    plain = line.isprintable() and "^[" not in line and line[:1] != "[" and line[-1:] != "m"
    return (line if plain else _ESCAPES.sub("", line)).rstrip()


def _of_first_process(
    lines: list[tuple[int, str]], note: Note
) -> tuple[list[tuple[int, str]], int]:
    """The lines of the first process of MPI, and how many processes there are.

    All train the same weights, and each prints the losses of its own data.
    """
    heads = (line[: match.start()] for _, line in lines if (match := _HEADER.search(line)))
    ranks = sorted({rank for head in heads if (rank := _rank(head, whole=True)) is not None})
    if len(ranks) < 2:
        return lines, 1
    note(f"the log is of {len(ranks)} processes of MPI; process {ranks[0]} is read")
    return [item for item in lines if _rank(item[1]) in (None, ranks[0])], len(ranks)


def _rank(line: str, whole: bool = False) -> int | None:
    match = _RANK.match(line)
    if match is None or (whole and line[match.end() :].strip()):
        return None
    return int(match["mpi"] or match["srun"])


# -- from lines to messages ------------------------------------------------------------------------


def _messages(lines: list[tuple[int, str]], clock: Clock) -> list[Message]:
    """The messages, and to the clock what tells their year. Lines before the first one are left out."""
    prefix = _prefix(line for _, line in lines[:_SAMPLE])
    messages: list[Message] = []
    date: re.Match[str] | None = None
    for number, line in lines:
        headers = list(_HEADER.finditer(line))
        if not headers:
            date = _CREATED.search(line) or date
            if messages:
                messages[-1].rest.append(
                    (number, prefix.sub("", line, count=1) if prefix else line)
                )
            continue
        for header, following in zip(headers, [*headers[1:], None]):
            end = following.start() if following else len(line)
            messages.append(
                _message(number, header, line[header.end() : end], whole=following is None)
            )
        if date := date or _DATE.search(line[: headers[0].start()]):
            clock.dated(len(messages) - 1, messages[-1].stamp, *map(int, date.groups()))
            date = None
    return messages


def _message(number: int, header: re.Match[str], text: str, whole: bool) -> Message:
    year = int(header["year"]) if header["year"] else None
    stamp = Stamp(
        f"{header['year'] or ''}{header['month']}{header['day']} {header['time']}",
        year, int(header["month"]), int(header["day"]), header["time"],
    )  # fmt: skip
    return Message(
        number, stamp, header["thread"], header["level"], header["place"], text, whole=whole
    )


def _prefix(lines: Iterable[str]) -> re.Pattern[str] | None:
    """What a container, MPI or a logger puts before each line, with any digits for its digits.

    It is learned from what precedes glog's messages, and precedes the lines of printed
    solvers and nets, too.
    """
    before: Counter[str] = Counter()
    for line in lines:
        match = _HEADER.search(line)
        if match and match.start():
            before[_form(line[: match.start()])] += 1
    forms = [form for form, count in before.most_common(20) if count >= 3]
    return re.compile("|".join(forms)) if forms else None


def _form(prefix: str) -> str:
    body = prefix.rstrip()
    parts = map(_part_form, re.split(r"([0-9]+|\s+)", body))
    # Fractions of a second may be left out, and so may spaces at the end of an empty line.
    form = "".join(parts).replace(r"\.\d+", r"(?:\.\d+)?")
    return rf"^{form}\s{{0,{len(prefix) - len(body)}}}"


def _part_form(part: str) -> str:
    if part.isdigit():
        return r"\d+"
    if part.isspace():
        return r"\s+"
    return re.escape(part)


# -- each message once -----------------------------------------------------------------------------


def _each_once(lines: list[tuple[int, str]], note: Note) -> list[tuple[int, str]]:
    """The lines without their repetitions, where each line of the log follows itself."""
    runs = [list(run) for _, run in groupby(lines, key=lambda line: line[1])]
    heads = [bool(_HEADER.search(run[0][1])) for run in runs]
    lengths = Counter(len(run) for run, head in zip(runs, heads) if head)
    # Where messages follow themselves and not lines, those of several lines show it.
    printed = Counter(
        len(run) for run, head, next_ in zip(runs, heads, heads[1:]) if head and not next_
    )
    times, _ = max(lengths.items(), key=lambda item: item[1], default=(1, 0))
    if times == 1 or not (_mostly(times, lengths) and _mostly(times, printed)):
        return lines
    note(f"each line is in the log {times} times; one of them is read")
    return [line for run in runs for line in run[: -(-len(run) // times)]]


def _mostly(value: int, counts: Counter[int]) -> bool:
    return counts[value] >= _MANY * sum(counts.values())


def _first_of_each(path: Path, messages: list[Message], note: Note) -> list[Message]:
    """The messages without their repetitions, where the whole log is in the file more than once.

    That is so where two streams were written to it. One line may well be there twice at the same
    moment: clocks of Windows count in milliseconds.

    Raises:
        InputError: the two are mixed within a printed solver or net, where no line tells whose it
            is.
    """
    counts = Counter(message.key for message in messages)
    often = Counter(counts.values())
    times, _ = max(often.items(), key=lambda item: item[1], default=(1, 0))
    if times == 1 or not _mostly(times, often):
        return messages
    note(f"each message is in the log {times} times; the first is read")
    left = {key: -(-count // times) for key, count in counts.items()}
    first: dict[tuple[str, ...], Message] = {}
    kept = []
    for message in messages:
        left[message.key] -= 1
        if left[message.key] >= 0:
            kept.append(message)
        same = first.setdefault(message.key, message)
        if "from parameters" in message.text and _texts(same) != _texts(message):
            raise InputError(
                f"{path}:{message.line}: two copies of the log are mixed line by line, within the text that "
                f"begins in line {same.line}, too; write one stream to the file, without -alsologtostderr"
            )
    return kept


def _texts(message: Message) -> list[str]:
    return [text for _, text in message.rest]
