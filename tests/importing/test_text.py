"""What shells, terminals and containers make of a log, and what damages it: the same run comes out."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import time
from dataclasses import replace
from datetime import datetime

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.caffelog import records_from_log
from tests.importing.logs import until

ANY_STAMP = re.compile(r"(?m)^([IWEF])(\d{4}) ")


def same(record, whole) -> bool:
    """Whether all is equal but the place of the log."""
    return replace(record, origin="") == replace(whole, origin="")


def each_line(log: str, change) -> str:
    return "".join(f"{change(line)}\n" for line in log.splitlines())


PREFIXED = {
    "docker --timestamps": lambda line: f"2023-11-28T12:48:23.0012345Z {line}",
    "kubernetes (CRI)": lambda line: f"2023-11-28T12:48:23.001Z stderr F {line}",
    "compose": lambda line: f"caffe_1  | {line}",
    "pod": lambda line: f"[pod/caffe-7f9c/train] {line}",
    "mpi": lambda line: f"[1,0]<stderr>:{line}",
    "syslog": lambda line: f"Nov 28 12:48:23 gpu07 caffe[4711]: {line}",
    "journald, empty lines trimmed": lambda line: (
        f"Nov 28 12:48:23 gpu07 caffe[4711]: {line}".rstrip()
    ),
    "logger": lambda line: f"2023-11-28 12:48:23,001 [INFO] {line}",
    "indented": lambda line: f"    {line}",
    "padded": lambda line: line.ljust(120),
    "json": lambda line: json.dumps(
        {"severity": "ERROR", "message": line, "time": "2023-11-28T12:48:23Z"}
    ),
    "docker json": lambda line: json.dumps(
        {"log": line + "\n", "stream": "stderr", "time": "2023-11-28T12:48:23.001Z"},
        separators=(",", ":"),
    ),
}


@pytest.mark.parametrize("kind", PREFIXED)
def test_prefixes(log, reader, kind):
    whole = reader.one(log)
    record = reader.one(each_line(log, PREFIXED[kind]))
    assert (record.uid, record.status) == (whole.uid, "finished")
    assert record.measurements == whole.measurements
    assert (record.network, record.dataset, record.solver) == (
        whole.network,
        whole.dataset,
        whole.solver,
    )


def test_a_date_before_the_lines_tells_the_year(log, reader):
    text = ANY_STAMP.sub(r"\g<1>0103 ", log)
    began = reader.one(each_line(text, lambda line: f"2019-01-03T12:48:23.001Z {line}")).started
    assert datetime.fromtimestamp(began).year == 2019
    # In Greenwich the year is over already.
    text = ANY_STAMP.sub(r"\g<1>1231 ", log)
    began = reader.one(each_line(text, lambda line: f"2020-01-01T01:48:23.001Z {line}")).started
    assert datetime.fromtimestamp(began).year == 2019


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_encodings(log, reader, encoding):
    whole = reader.one(log)
    assert same(reader.one(log.replace("\n", "\r\n").encode(encoding)), whole)


def test_utf16_that_a_shell_appended_to_plain_text(log, reader):
    half = log.index("Iteration 100, Testing")
    half = log.rindex("\n", 0, half) + 1
    assert same(reader.one(log[:half].encode() + log[half:].encode("utf-16")), reader.one(log))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed(log, reader, pack):
    assert same(reader.one(pack(log.encode())), reader.one(log))


def test_a_packed_file_that_is_cut(log, reader):
    with pytest.raises(InputError, match=r"cannot read .*x\.log: not a complete compressed file"):
        reader.one(gzip.compress(log.encode())[:2000])


@pytest.mark.parametrize(
    "change",
    [
        lambda line: f"\x1b[32m{line}\x1b[0m",
        lambda line: f"^[[1;31m{line}^[[0m",
        lambda line: f"[32m{line}[0m",
        lambda line: f"\x1b]0;title\x07{line}",
        lambda line: f"{line}\r",
    ],
    ids=["colour", "cat -v", "without the escape", "title", "script"],
)
def test_colours(log, reader, change):
    assert same(reader.one(each_line(log, change)), reader.one(log))


# -- paths of Windows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["d:\\caffe\\src\\", "C:\\Program Files (x86)\\caffe\\", "..\\src\\"]
)
def test_whole_paths_of_windows(log, reader, folder):
    changed = re.sub(
        r"(?m)^(\S+ \S+ +\d+) (\w+\.\w+:\d+\])", lambda m: f"{m[1]} {folder}{m[2]}", log
    )
    assert changed.count(folder) > 50
    assert same(reader.one(changed), reader.one(log))


# -- more than once --------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 3])
def test_each_line_several_times(log, reader, times):
    whole = reader.one(log)
    record = reader.one("".join(line * times for line in log.splitlines(keepends=True)))
    assert same(record, whole)
    assert reader.noted(f"each line is in the log {times} times")


def test_each_message_twice(log, reader):
    """-alsologtostderr, with both streams in one file."""
    whole = reader.one(log)
    messages = re.split(r"(?m)^(?=[IWEF]\d{4} )", log)[1:]
    record = reader.one("".join(message * 2 for message in messages))
    assert same(record, whole)
    assert reader.noted("each message is in the log 2 times")


def test_the_whole_log_twice(log, reader):
    assert same(reader.one(log + log), reader.one(log))


def test_two_streams_one_behind_the_other(log, reader):
    """The second stream is written some lines later, between the first one's lines."""
    whole = reader.one(log)
    messages = re.split(r"(?m)^(?=[IWEF]\d{4} )", log)[1:]
    late = [None] * 5 + messages
    mixed = "".join((a or "") + (b or "") for a, b in zip([*messages, *[None] * 5], late))
    assert same(reader.one(mixed), whole)


def test_two_streams_mixed_within_the_text_of_a_net(log, reader):
    """Which line of the text is whose cannot be told; the message says what to do."""
    lines = log.splitlines(keepends=True)
    mixed = [line for pair in zip(lines + [""] * 3, [""] * 3 + lines) for line in pair]
    with pytest.raises(
        InputError, match=r"x\.log:\d+: two copies of the log are mixed line by line"
    ):
        reader.one("".join(mixed))


def test_lines_of_the_same_moment_stay(log, reader):
    """Clocks of Windows count in milliseconds: equal lines are no repetition there."""
    coarse = re.sub(r"(\d\d:\d\d:\d\d\.\d)\d{5}", r"\g<1>00000", log)
    assert reader.one(coarse).network == reader.one(log).network


RANKS = {"mpirun": "[{}] ", "mpirun --tag-output": "[1,{}]<stderr>:", "srun --label": "{}: "}


@pytest.mark.parametrize("launcher", RANKS)
def test_processes_of_mpi(log, reader, launcher):
    """Intel's Caffe: each process trains batches of its own, and prints its own losses."""
    whole = reader.one(log)
    both = [RANKS[launcher].format(rank) for rank in (0, 1)]
    other = re.sub(r"(loss|accuracy|top5) = 0", r"\1 = 1", log)
    lines = zip(log.splitlines(), other.splitlines())
    record = reader.one("".join(f"{both[0]}{one}\n{both[1]}{two}\n" for one, two in lines))
    assert record.measurements == whole.measurements
    assert record.solver.batch == 2 * whole.solver.batch
    assert reader.noted("2 processes of MPI; process 0 is read")


# -- damage ----------------------------------------------------------------------------------------


def test_one_damaged_number_loses_its_line(log, reader):
    whole = reader.one(log)
    text = log.replace("Iteration 100, lr = ", "Iteration 100, lr = ^C")
    record = reader.one(text)
    assert [m.iteration for m in record.measurements] == [0, 50, 100, 150, 200]
    assert record.measurements[2].lr == pytest.approx(0.05 * 2**-0.75)  # worked out, not read
    assert record.status == "finished"
    assert reader.noted("1 damaged line left out; the first is line ")
    others = [replace(m, lr=0.0) for m in record.measurements]
    assert others == [replace(m, lr=0.0) for m in whole.measurements]


def test_ctrl_c_before_a_line_damages_nothing(log, reader):
    text = re.sub(r"(?m)^(I.*Iteration 100, Testing)", r"^C\1", log)
    assert same(reader.one(text), reader.one(log))


def test_a_line_that_follows_another_without_a_break_is_read(log, reader):
    """Its neighbour's number may go on, so that is left out."""
    whole = reader.one(log)
    text = re.sub(r"(Iteration 90, lr = 0\.0\d)\d*\n", r"\1", log)
    record = reader.one(text)
    assert [m.iteration for m in record.measurements] == [0, 50, 100, 150, 200]
    assert record.measurements == whole.measurements
    assert reader.noted("1 damaged line left out")


def test_a_damaged_output_is_missing_and_the_others_stay(log, reader):
    whole = reader.one(log).measurements
    text = re.sub(r"accuracy = \S+", "accuracy = O.1", log, count=1)
    measured = reader.one(text).measurements
    assert (measured[0].top1, measured[0].top5) == (None, whole[0].top5)
    assert measured[1:] == whole[1:]
    line = 1 + text[: text.index("O.1")].count("\n")
    assert reader.noted(f"line {line}: 'Test net output #0: accuracy = O.1'")


def test_without_one_of_the_losses_there_is_no_test_loss(log, reader):
    text = re.sub(r"(Test net output #1: loss = \S+) \(.*\)", r"\1", log, count=1)
    measured = reader.one(text).measurements
    assert (measured[0].test_loss, measured[0].ld) == (None, None)
    assert measured[1].test_loss is not None


def test_outputs_behind_a_lost_first_line_are_no_other_tests(log, reader):
    """The values of the test at 100 are not those of the test at 50."""
    whole = {m.iteration: m for m in reader.one(log).measurements}
    text = re.sub(r"(?m)^.*Iteration 100, Testing net.*\n", "", log)
    measured = {m.iteration: m for m in reader.one(text).measurements}
    assert list(measured) == [0, 50, 150, 200]
    assert measured[50] == whole[50]


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log.replace("Iteration 100, lr", "Iteration 100, l\nr", 1),
        lambda log: re.sub(
            r"(Iteration 100 \(.*, loss = \d\.)\d*\n", r"\1", log
        ),  # two lines in one
        lambda log: log.replace("I", "\0" * 900 + "I", 1),
        lambda log: re.sub(r"\n(.*Iteration 100 \()", "\n" + "\0" * 4096 + r"\n\1", log),
        lambda log: re.sub(r"(?m)^(.*Iteration 100, lr = ).*$", "\\1%$\xa7\xff", log),
        lambda log: re.sub(r"(?m)^.*Iteration 100, lr = .*$", "I1128 12:4", log),
        lambda log: log.replace("Iteration 100, lr = 0", "Iteration 100, lr = 0.0.1", 1),
    ],
    ids=["broken", "glued", "NULs at the start", "NULs", "bytes", "no header", "two points"],
)
def test_damage_of_one_place(log, reader, damage):
    whole = reader.one(log)
    text = damage(log)
    assert text != log
    record = reader.one(text.encode("latin-1", "replace"))
    assert record.status == "finished"
    assert record.policy == whole.policy
    assert [m.iteration for m in record.measurements] == [0, 50, 100, 150, 200]
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]
    assert [m.test_loss for m in record.measurements] == [m.test_loss for m in whole.measurements]


def test_output_of_other_programs_between_the_lines(log, reader):
    whole = reader.one(log)
    noisy = re.sub(
        r"(?m)^(I.*Iteration \d+.*)$", r"libdc1394 error: x\n\1\nepoch 3: 12 %|###   |", log
    )
    record = reader.one(noisy)
    assert record.measurements == whole.measurements
    assert record.network == whole.network


def test_a_damaged_line_of_the_net_makes_it_partial(log, reader, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the net's file is not
    whole = reader.one(log)
    record = reader.one(log.replace("    num_output: 16", "    num_output: 1\x016^C"))
    assert record.network.name == "tiny (partial)"
    assert record.network.digest != whole.network.digest
    assert record.network.parameters is None
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]


def test_decimal_commas_are_damaged_and_not_cut(log, reader):
    """All of them: they are no numbers of Caffe's."""
    whole = reader.one(log)
    record = reader.one(re.sub(r"(lr|loss|accuracy) = (\d+)\.(\d)", r"\1 = \2,\3", log))
    assert reader.noted("damaged lines left out")
    assert [m.train_loss for m in record.measurements] == [None] * len(record.measurements)
    assert record.policy == whole.policy
    assert all(m.top1 is None and m.test_loss is None for m in record.measurements)


def test_an_iteration_with_a_comma_is_no_other_iteration(log, reader):
    changed = re.sub(r"Iteration (1)(\d\d)\b(?=[ ,(].*(loss|lr) =)", r"Iteration \1,\2", log)
    assert changed != log
    reader.one(changed)
    assert reader.noted("damaged")


def test_a_number_of_an_lr_that_was_cut_is_not_taken(log, reader):
    text = re.sub(r"(Iteration 100, lr = 0\.0)\d+", r"\1", log)
    record = reader.one(text)
    assert record.policy.text == "INV(k0=0.05, gamma=0.01, p=0.75)"
    assert record.measurements[2].lr == pytest.approx(0.05 * 2**-0.75)


# -- time ------------------------------------------------------------------------------------------


def dated(log: str, first: str, second: str | None = None) -> str:
    """The log with its lines of ``first``, MMDD, and from iteration 100 on of ``second``."""
    half = len(until(log, "Iteration 100, Testing"))
    return ANY_STAMP.sub(rf"\g<1>{first} ", log[:half]) + ANY_STAMP.sub(
        rf"\g<1>{second or first} ", log[half:]
    )


def test_over_new_year(log, reader):
    record = reader.one(dated(log, "1231", "0101"))
    assert record.ended > record.started
    seconds = [m.seconds for m in record.measurements]
    assert seconds == sorted(seconds)
    assert 86_399 < seconds[2] - seconds[1] < 86_401 + 60


def test_over_two_new_years(log, reader):
    text = dated(log, "1231", "0101")
    half = len(until(text, "Iteration 150, Testing"))
    text = text[:half] + ANY_STAMP.sub(r"\g<1>0701 ", text[half:])
    half = len(until(text, "Iteration 200, Testing"))
    text = text[:half] + ANY_STAMP.sub(r"\g<1>0102 ", text[half:])
    record = reader.one(text)
    years = [datetime.fromtimestamp(t).year for t in (record.started, record.ended)]
    assert years[1] - years[0] == 2


def test_the_year_in_glogs_header(log, reader):
    header = "Log file created at: 2016/02/29 20:56:06\nRunning on machine: host1\n"
    header += "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
    record = reader.one(header + dated(log, "0229"))
    began = datetime.fromtimestamp(record.started)
    assert (began.year, began.month, began.day) == (2016, 2, 29)


def test_the_year_in_the_lines_of_glog_0_6(log, reader):
    record = reader.one(re.sub(r"(?m)^([IWEF])\d{4} ", r"\g<1>20200229 ", log))
    assert datetime.fromtimestamp(record.started).date().isoformat() == "2020-02-29"


def read_as_of(reader, messages, log: str, year: int, month: int):
    """The run of a log whose file is of this month."""
    reader.path.write_text(log)
    then = time.mktime((year, month, 14, 12, 0, 0, 0, 0, -1))
    os.utime(reader.path, (then, then))
    (record,) = records_from_log(reader.path, messages, note=reader.notes.append)
    return record


def test_29_february_without_any_year(log, reader, messages):
    record = read_as_of(reader, messages, dated(log, "0229"), 2017, 7)
    assert datetime.fromtimestamp(record.started).date().isoformat() == "2016-02-29"
    assert reader.noted("2016 is taken for its year")


@pytest.mark.parametrize(
    ("day", "month", "year"),
    [
        ("1230", 1, 2017),
        ("1224", 11, 2017),
        ("0916", 9, 2017),
        ("0915", 9, 2018),  # another time zone's
        ("0914", 9, 2018),
        ("0101", 12, 2018),
    ],
)
def test_the_year_is_the_latest_that_is_not_after_the_files(
    log, reader, messages, day, month, year
):
    """The file is of the 14th of a month of 2018, at noon; the lines are of one o'clock or so."""
    text = re.sub(r"(?m)^([IWEF]\d{4}) \d\d:", r"\1 13:", dated(log, day))
    record = read_as_of(reader, messages, text, 2018, month)
    assert datetime.fromtimestamp(record.started).year == year


def test_a_log_of_new_year_whose_file_is_of_the_day_before(log, reader, messages):
    """Where the log was written it is 1 January already."""
    text = re.sub(r"(?m)^([IWEF]\d{4}) \d\d:", r"\1 01:", dated(log, "0101"))
    reader.path.write_text(text)
    then = time.mktime((2018, 12, 31, 12, 0, 0, 0, 0, -1))
    os.utime(reader.path, (then, then))
    (record,) = records_from_log(reader.path, messages)
    assert datetime.fromtimestamp(record.started).date().isoformat() == "2019-01-01"


def test_a_log_whose_file_has_lost_its_date(log, reader, messages):
    """Archives that are made the same each time date their files to the beginning of time."""
    reader.path.write_text(dated(log, "0305"))
    os.utime(reader.path, (0, 0))
    (record,) = records_from_log(reader.path, messages)
    assert datetime.fromtimestamp(record.started).year == 1970


def test_a_clock_that_is_set_back(log, reader):
    """An hour in autumn: the tests after it are not before those before it."""
    half = len(until(log, "Iteration 100, Testing"))

    def hour(by: int):
        return lambda m: f"{m[1]} {12 - by:02}{m[2]}"

    stamp = re.compile(r"(?m)^([IWEF]\d{4}) \d\d(:\d\d:\d\d\.\d+)")
    text = stamp.sub(hour(0), log[:half]) + stamp.sub(hour(1), log[half:])
    record = reader.one(text)
    seconds = [m.seconds for m in record.measurements]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 600
    assert record.ended >= record.started


# -- no training -----------------------------------------------------------------------------------


def lines(*texts: str) -> str:
    return "".join(f"{text[0]}1128 12:48:23.223111  7 {text[1:]}\n" for text in texts)


SOLVER = "Isolver.cpp:45] Initializing solver from parameters: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines("Icaffe.cpp:281] Running for 50 iterations."), "the log of `caffe test`"),
        (lines("Icaffe.cpp:416] Average Forward pass: 12 ms."), "the log of `caffe time`"),
        (
            lines(SOLVER, "Fdb.hpp:15] Check failed"),
            "Caffe ended before the first iteration: Check failed",
        ),
        (lines(SOLVER) + "max_iter: 3\n", "ends before the first"),
        ("hello\n", "no line has Caffe's form"),
    ],
)
def test_why_there_is_no_training(reader, text, words):
    with pytest.raises(InputError, match=f"no training in it: .*{words}"):
        reader.one(text)


def test_a_scoring_job(log, reader):
    with pytest.raises(InputError, match="no training in it: max_iter is 0"):
        reader.one(log.replace("max_iter: 200", "max_iter: 0"))
