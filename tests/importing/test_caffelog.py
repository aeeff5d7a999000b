"""Runs from Caffe's logs: real ones, made by the real caffe here, and what can happen to a log."""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.caffelog import records_from_log
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.task import open_task
from lrbench_caffe.records import RunRecord
from lrbench_caffe.terminal import cli
from tests.caffe import nets

PATIENT = {"max_iter": 200, "snapshot": 100}


def one(path: Path, text: str, messages: Messages) -> RunRecord:
    (record,) = all_of(path, text, messages)
    return record


def all_of(path: Path, text: str, messages: Messages) -> list[RunRecord]:
    file = path / "x.log"
    file.write_text(text)
    return records_from_log(file, messages)


def printed(log: str, pattern: str) -> list[float]:
    return [float(value) for value in re.findall(pattern, log)]


def test_the_log_of_a_run_of_ours_is_no_log_of_caffe_train(tmp_path, messages):
    """To Caffe the LR was fixed: the policy is in the run directory."""
    log = (
        "I1125 10:00:00.000000  7 solver.cpp:50] Solving tiny\n"
        "I1125 10:00:00.000000  7 solver.cpp:51] Learning Rate Policy: SIN2(k0=0.01, k1=0.06, l=50)\n"
        "I1125 10:00:01.000000  7 solver.cpp:218] Iteration 0, loss = 2.3\n"
    )
    with pytest.raises(InputError, match=r"x\.log:2: .* with SIN2\(k0=0\.01, .*; .*: db sync "):
        all_of(tmp_path, log, messages)


# -- a whole training ------------------------------------------------------------------------------


def test_what_was_trained(log, trained, tmp_path, messages):
    record = one(tmp_path, log, messages)
    solver, task = open_task(trained.path / "solver.prototxt")
    assert record.dataset == task.dataset
    assert record.network == task.network
    assert record.task_type == "classification"
    assert record.policy.text == "INV(k0=0.05, gamma=0.01, p=0.75)"
    assert (record.max_iter, record.test_interval, record.seed) == (200, 50, 7)
    assert (record.solver.type, record.solver.batch, record.solver.momentum) == ("SGD", 20, 0.9)
    assert record.epoch == solver.epoch == 1297 / 20
    assert (record.framework.name, record.framework.version, record.framework.device) == (
        "Caffe",
        "unknown",
        "CPU",
    )
    assert (record.source, record.status, record.reason) == ("imported", "finished", None)
    assert record.ended > record.started


def test_its_tests(log, tmp_path, messages):
    record = one(tmp_path, log, messages)
    measured = record.measurements
    assert [m.iteration for m in measured] == [0, 50, 100, 150, 200]
    assert [m.top1 for m in measured] == pytest.approx(
        [100 * v for v in printed(log, r"accuracy = (\S+)")]
    )
    assert [m.top5 for m in measured] == pytest.approx(
        [100 * v for v in printed(log, r"#\d: top5 = (\S+)")]
    )
    assert [m.test_loss for m in measured] == printed(log, r"Test net output #\d: loss = (\S+)")
    assert {(m.ac, m.cd, m.cdac) for m in measured} == {(None, None, None)}
    assert {m.samples for m in measured} == {500}
    assert all(a.seconds < b.seconds for a, b in zip(measured, measured[1:]))
    lrs = [0.05 * (1 + 0.01 * m.iteration) ** -0.75 for m in measured]
    assert [m.lr for m in measured] == pytest.approx(lrs, rel=1e-5)


def test_training_losses_are_means_of_the_displayed_ones(log, tmp_path, messages):
    shown = dict(re.findall(r"Iteration (\d+) .*, loss = (\S+)", log))
    record = one(tmp_path, log, messages)
    assert record.measurements[0].train_loss is None
    for m in record.measurements[1:]:
        # display is 10: of the 50 iterations before the test, these
        losses = [float(shown[str(t)]) for t in range(m.iteration - 50, m.iteration, 10)]
        assert m.train_loss == pytest.approx(statistics.fmean(losses))
        assert m.ld == pytest.approx(m.test_loss - m.train_loss)


def test_without_the_data_its_size_is_not_known(log, tmp_path, messages, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = one(tmp_path, log, messages)
    data = record.dataset
    assert (data.name, data.channels, data.height, data.width, data.classes) == (
        "digits",
        1,
        8,
        8,
        10,
    )
    assert (data.train_samples, data.test_samples, data.digest, record.epoch) == (
        None,
        None,
        None,
        None,
    )
    assert record.network.parameters == 64 * 16 + 16 + 16 * 10 + 10


def test_importing_twice_adds_nothing(log, tmp_path, new_database, messages):
    record = one(tmp_path, log, messages)
    (tmp_path / "elsewhere").mkdir()
    copy = one(tmp_path / "elsewhere", log, messages)
    assert copy.uid == record.uid
    with Database.open(new_database) as database:
        assert database.put(record) is True
        assert database.put(one(tmp_path, log, messages)) is False


def test_names_that_no_database_keeps_are_stored_with_escapes(
    log, tmp_path, new_database, messages, capsys
):
    """As a training records them."""
    named, count = re.subn(r'^name: "(\w+)"$', r'name: "\1\\033[2J\\001"', log, flags=re.MULTILINE)
    assert count == 2  # the training net and the test net, as text format prints such names
    path = tmp_path / os.fsdecode(b"caffe\xff.log")
    path.write_text(named)
    plain = one(tmp_path, log, messages).network
    assert cli.run(db.main, ["import-log", str(path), "--db", new_database]) == 0
    capsys.readouterr()
    with Database.open(new_database) as database:
        (stored,) = database.runs(source="imported")
    assert stored.network.name == rf"{plain.name}\x1b[2J\x01"
    assert stored.network.digest == plain.digest
    assert stored.origin.startswith(rf"{tmp_path}/caffe\udcff.log")


# -- what happens to logs --------------------------------------------------------------------------


def test_a_resumed_training_is_one_run(log, trained, tmp_path, messages):
    resumed = (trained.path / "b.log").read_text()
    cut = log[: log.index("Iteration 150, Testing")].rpartition("\n")[0] + "\n"
    record = one(tmp_path, cut + resumed, messages)
    assert record.uid == one(tmp_path, log, messages).uid
    assert record.status == "finished"
    assert [m.iteration for m in record.measurements] == [0, 50, 100, 150, 200]
    seconds = [m.seconds for m in record.measurements]
    assert seconds == sorted(seconds)


def test_a_resumed_training_without_its_beginning(trained, tmp_path, messages, monkeypatch):
    monkeypatch.chdir(trained.path)
    record = one(tmp_path, (trained.path / "b.log").read_text(), messages)
    assert [m.iteration for m in record.measurements] == [
        100,
        150,
        200,
    ]  # Caffe tests when it resumes


def a_day_later(log: str) -> str:
    """The log with the next day in its stamps (of a leap year, which has every day)."""

    def later(stamp: re.Match[str]) -> str:
        day = datetime.strptime(f"2024{stamp[2]}", "%Y%m%d") + timedelta(days=1)
        return f"{stamp[1]}{day:%m%d} "

    return re.sub(r"^([IWEF])(\d{4}) ", later, log, flags=re.MULTILINE)


def test_two_trainings_in_one_log(log, tmp_path, messages):
    other = a_day_later(log.replace("base_lr: 0.05", "base_lr: 0.02"))
    other = re.sub(r"lr = (\S+)", lambda lr: f"lr = {float(lr[1]) * 0.4:.6g}", other)
    records = all_of(tmp_path, log + other, messages)
    assert [r.policy.params["k0"] for r in records] == [0.05, 0.02]
    assert len({r.uid for r in records}) == 2


def test_a_log_that_breaks_off(log, tmp_path, messages):
    whole = one(tmp_path, log, messages)
    end = log.index("Iteration 150, Testing")
    record = one(
        tmp_path, log[: log.index("top5", end)], messages
    )  # amid the lines of the test at 150
    assert record.uid == whole.uid
    assert (record.status, record.reason) == ("failed", "the log ends at iteration 150 of 200")
    assert record.measurements == whole.measurements[:3]


@pytest.mark.ci
@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 0.95, 0.99])
def test_a_log_cut_anywhere_has_no_wrong_number(log, tmp_path, messages, share):
    whole = {m.iteration: m for m in one(tmp_path, log, messages).measurements}
    for length in range(int(len(log) * share), int(len(log) * share) + 60):
        try:
            record = one(tmp_path, log[:length], messages)
        except InputError as error:
            assert "no training in it" in str(error)
            continue
        for measurement in record.measurements:
            other = whole[measurement.iteration]
            assert measurement.lr == pytest.approx(other.lr, rel=1e-5)  # printed, or worked out
            assert replace(measurement, lr=0.0) == replace(other, lr=0.0)


def test_a_log_that_grows_completes_its_run(log, tmp_path, new_database, messages):
    cut = log[: log.index("Iteration 150, Testing")].rpartition("\n")[0] + "\n"
    with Database.open(new_database) as database:
        database.put(one(tmp_path, cut, messages))
        record = one(tmp_path, log, messages)
        assert database.put(record) is True
        stored = database.get(record.uid)
        assert (stored.status, len(stored.measurements)) == ("finished", 5)


def test_stopped_early(log, tmp_path, messages):
    stopped = log[: log.index("Iteration 150, Testing")].rpartition("\n")[0] + (
        "\nI1124 21:13:48.754855 12746 solver.cpp:311] Optimization stopped early."
        "\nI1124 21:13:48.754863 12746 caffe.cpp:250] Optimization Done.\n"
    )
    assert one(tmp_path, stopped, messages).status == "stopped"


def test_a_failed_check(log, tmp_path, messages):
    failed = log[: log.index("Iteration 150, Testing")].rpartition("\n")[0] + (
        "\nF1124 21:14:02.323783 12922 syncedmem.hpp:22] Check failed: error == cudaSuccess (2 vs. 0)\n"
    )
    record = one(tmp_path, failed, messages)
    assert (record.status, record.reason) == (
        "failed",
        "Check failed: error == cudaSuccess (2 vs. 0)",
    )


def test_a_training_that_diverges(trained, tmp_path, messages, monkeypatch):
    """Where the scores are not numbers, Caffe counts every sample as correct; that is no Top-1 of 100 %."""
    monkeypatch.chdir(trained.path)
    trained.write("wild.prototxt", nets.solver(base_lr="1e6", snapshot_prefix='"wild"'))
    text = trained.caffe("train", "--solver=wild.prototxt").err
    assert "accuracy = 1\n" in text and "nan" in text
    record = one(tmp_path, text, messages)
    assert record.status == "diverged"
    assert "the loss is not a number at iteration" in record.reason
    assert record.measurements[0].top1 is not None
    assert {(m.top1, m.top5, m.test_loss, m.ld) for m in record.measurements[1:]} == {(None,) * 4}


@pytest.mark.parametrize("form", ["2015", "nvcaffe", "year", "windows"])
def test_other_forms_of_the_lines(log, tmp_path, messages, form):
    expected = one(tmp_path, log, messages).measurements
    if form == "2015":  # without speed in the line
        text = re.sub(r"(Iteration \d+) \([^)]*\), loss", r"\1, loss", log)
    elif form == "nvcaffe":
        text = re.sub(r"(Iteration \d+ \([^)]*\)), loss", r"\1, 0.1/2.0ep, loss", log)
        text = re.sub(r"(Iteration \d+, lr = \S+)", r"\1, m = 0.9, wd = 0.0005, gs = 1", text)
        text = text.replace('type: "SGD"\n', 'type: "SGD"\nmin_lr: 0.001\nrampup_interval: 5\n')
    elif form == "year":
        text = re.sub(r"^([IWEF])(\d{4}) ", r"\g<1>2019\2 ", log, flags=re.MULTILINE)
    else:
        text = log.replace("\n", "\r\n")
    assert text != log
    assert one(tmp_path, text, messages).measurements == expected


def test_the_year_of_an_old_log_is_the_files(log, tmp_path, messages):
    file = tmp_path / "x.log"
    file.write_text(re.sub(r"(?m)^([IWEF])\d{4} ", r"\g<1>0610 ", log))
    os.utime(file, (1_500_000_000, 1_500_000_000))  # July 2017
    (record,) = records_from_log(file, messages)
    assert 1_483_142_400 < record.started < 1_514_851_200  # 2017, in any time zone


# -- DIGITS ----------------------------------------------------------------------------------------


def test_a_digits_job(log, tmp_path, messages):
    """caffe_output.log holds Caffe's lines, some behind DIGITS' own stamps, and starts where it likes."""
    job = tmp_path / "20160101-120000-abcd"
    job.mkdir()
    (job / "solver.prototxt").write_text(nets.solver(**PATIENT, net='"train_val.prototxt"'))
    (job / "train_val.prototxt").write_text(nets.net())
    began = log.index("Iteration 0, Testing")
    lines = log[log.rindex("\n", 0, began) + 1 :].splitlines()
    lines[2] = f"2016-01-01 12:00:00 [20160101-120000-abcd] [DEBUG] {lines[2]}"
    (job / "caffe_output.log").write_text("\n".join(lines) + "\n")
    (record,) = records_from_log(job / "caffe_output.log", messages)
    whole = one(tmp_path, log, messages)
    assert record.policy == whole.policy
    assert record.network.digest == whole.network.digest
    assert record.status == "finished"
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]


def test_the_data_set_of_a_digits_job(log, tmp_path, messages, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = log.replace("data/digits_train_lmdb", "/digits/jobs/20160101-110000-beef/train_db")
    assert one(tmp_path, text, messages).dataset.name == "20160101-110000-beef"


# -- what is refused -------------------------------------------------------------------------------


def test_no_such_file(tmp_path, messages):
    with pytest.raises(InputError, match=r"cannot read .*x\.log: No such file"):
        records_from_log(tmp_path / "x.log", messages)


@pytest.mark.parametrize("text", ["", "hello\n", "\0\xff\n" * 50])
def test_no_log(tmp_path, messages, text):
    with pytest.raises(InputError, match=r"x\.log: no training in it"):
        all_of(tmp_path, text, messages)


def test_the_beginning_is_missing(log, tmp_path, messages):
    began = log.rindex("\n", 0, log.index("Iteration 0, Testing")) + 1
    with pytest.raises(
        InputError, match=r"x\.log:1: the beginning of the log.* is missing.*name the solver"
    ):
        all_of(tmp_path, log[began:], messages)


def test_a_broken_solver_names_its_line(log, tmp_path, messages):
    line = 1 + log[: log.index("max_iter")].count("\n")
    with pytest.raises(InputError, match=rf"x\.log:{line}: SolverParameter cannot be read"):
        all_of(tmp_path, log.replace("max_iter: 200", "max_iter: many"), messages)


def test_an_lr_policy_that_is_not_known(log, tmp_path, messages):
    """Nothing tells the LRs then."""
    text = re.sub(r"(?m)^.*, lr = .*\n", "", log.replace('lr_policy: "inv"', 'lr_policy: "warmup"'))
    with pytest.raises(InputError, match=r"x\.log:\d+: unknown lr_policy 'warmup'"):
        all_of(tmp_path, text, messages)


@pytest.mark.parametrize("instead", ["max_iter: 0", ""])
def test_a_training_without_a_length(log, tmp_path, messages, instead):
    with pytest.raises(InputError, match=r"x\.log:\d+: .*max_iter"):
        all_of(tmp_path, log.replace("max_iter: 200", instead), messages)
