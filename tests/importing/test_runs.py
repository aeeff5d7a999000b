"""Which sessions of a log are one run, what it began with, how it ended, and what a second import adds."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.database.errors import ConflictError
from lrbench_caffe.importing.caffelog import records_from_log, records_from_logs
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.runs.caffefiles import models_digest, state_digest
from lrbench_caffe.terminal import cli
from tests.caffe import nets
from tests.importing.logs import until


@pytest.fixture
def resumed(trained, log) -> str:
    """The log of the same training resumed at iteration 100."""
    return (trained.path / "b.log").read_text()


STOPPED = (
    "I1128 21:13:48.754855 12746 solver.cpp:311] Optimization stopped early.\n"
    "I1128 21:13:48.754863 12746 caffe.cpp:250] Optimization Done.\n"
)

# -- what it began with ----------------------------------------------------------------------------


def test_a_training_from_scratch(log, reader):
    assert reader.one(log).start == SCRATCH


def test_a_resumed_training_alone(resumed, reader, trained, messages):
    record = reader.one(resumed)
    state, model = (
        trained.path / "tiny_iter_100.solverstate",
        trained.path / "tiny_iter_100.caffemodel",
    )
    assert record.start == Start("snapshot", state_digest(state, model, messages), iteration=100)
    assert record.start.name == "tiny_iter_100.solverstate"
    assert reader.noted("the log begins when the training was resumed")
    assert [m.iteration for m in record.measurements] == [100, 150, 200]


def test_a_resumed_training_alone_without_its_snapshot(resumed, reader, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    start = reader.one(resumed).start
    assert (start.kind, start.iteration, start.digest, start.known) == (
        "snapshot",
        100,
        None,
        False,
    )


def test_a_snapshot_in_a_folder_with_a_blank(resumed, reader, trained):
    folder = reader.path.parent / "my runs"
    folder.mkdir()
    for suffix in ("caffemodel", "solverstate"):
        shutil.copy(trained.path / f"tiny_iter_100.{suffix}", folder)
    text = resumed.replace("from tiny_iter_100", "from my runs/tiny_iter_100")
    start = reader.one(text).start
    assert start.known and start == reader.one(resumed).start


def test_a_snapshot_of_another_name(resumed, reader):
    """Without an iteration in its name it is the first one that was printed."""
    start = reader.one(resumed.replace("tiny_iter_100.solverstate", "best.state")).start
    assert (start.kind, start.iteration, start.name) == ("snapshot", 100, "best.state")


def test_a_restored_solver_of_a_python_script(log, reader):
    """pycaffe's solver.restore names no file."""
    line = until(log, "Iteration 0, Testing").splitlines()[-1]
    line = line[: line.index("]") + 1] + " SGDSolver: restoring history"
    start = reader.one(
        log.replace(line[:10], line[:10], 1).replace("] Solving", f"] x\n{line}\n{line[:40]}")
    ).start
    assert start.kind == "snapshot"


def test_finetuned(log, trained, reader, messages):
    done = trained.caffe("train", "--solver=solver.prototxt", "--weights=tiny_iter_100.caffemodel")
    log = done.succeeded().err
    record = reader.one(log)
    digest = models_digest([trained.path / "tiny_iter_100.caffemodel"])
    assert record.start == Start("weights", digest, filled=2, layers=2)
    shown = log.replace("tiny_iter_100.caffemodel", "else where/my vgg.caffemodel")
    start = reader.one(shown).start
    assert (start.kind, start.digest, start.name, start.known) == (
        "weights",
        None,
        "my vgg.caffemodel",
        False,
    )


def test_copied_from_weights_without_a_name(log, reader):
    """net.copy_from of pycaffe prints no file."""
    text = log.replace(
        "] Solving", "] Ignoring source layer fc8\nI1128 12:00:00.000000 7 solver.cpp:289] Solving"
    )
    assert reader.one(text).start == Start("weights")


def test_nothing_tells_what_a_log_without_its_beginning_began_with(log, reader, tmp_path):
    (tmp_path / "solver.prototxt").write_text(nets.solver(max_iter=200))
    record = reader.one(log[len(until(log, "Iteration 0, Testing")) :])
    assert record.start.kind == "unknown"
    assert record.status == "finished"


# -- one run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ("test_iter: 5", "test_iter: 3"),
        ("test_interval: 50", "test_interval: 25"),
        ("display: 10", "display: 5"),
        ('snapshot_prefix: "tiny"', 'snapshot_prefix: "other/tiny"'),
        ("snapshot: 100", "snapshot: 20"),
    ],
)
def test_what_may_change_when_a_training_is_resumed(log, resumed, reader, change):
    assert change[0] in resumed
    stopped = until(log, "Iteration 150, Testing") + STOPPED
    record = reader.one(stopped + resumed.replace(*change))
    assert record.uid == reader.one(log).uid
    assert (record.status, record.start) == ("finished", SCRATCH)
    assert [m.iteration for m in record.measurements] == [0, 50, 100, 150, 200]


def test_stopped_and_then_finished_is_finished(log, resumed, reader):
    stopped = until(log, "Iteration 150, Testing") + STOPPED
    assert reader.one(stopped).status == "stopped"
    assert reader.one(stopped + resumed).status == "finished"


def test_stopped_in_the_last_iteration_is_finished(log, reader):
    text = until(log, "Iteration 200, loss") + STOPPED
    assert "tiny_iter_200.solverstate" in text
    assert reader.one(text).status == "finished"


@pytest.mark.parametrize(
    "change", [("base_lr: 0.05", "base_lr: 0.01"), ("momentum: 0.9", "momentum: 0.5")]
)
def test_what_makes_a_resumed_training_another_one(log, resumed, reader, change):
    first, second = reader.all_of(until(log, "Iteration 150, Testing") + resumed.replace(*change))
    assert first.start == SCRATCH
    assert second.start.kind == "snapshot"


def test_a_snapshot_that_the_training_before_did_not_reach(log, resumed, reader):
    """It failed early; the snapshot is an earlier training's."""
    early = until(log, "Iteration 50, Testing")
    first, second = reader.all_of(early + resumed)
    assert (first.status, first.start) == ("failed", SCRATCH)
    assert (second.status, second.start.kind) == ("finished", "snapshot")


def test_two_trainings_that_write_to_one_log_at_the_same_time(log, reader):
    whole = reader.one(log)
    other = re.sub(r"(?m)^([IWEF]\d{4} \S+\.\d{4})\d\d +\d+ ", r"\g<1>77 99 ", log)
    other = other.replace("base_lr: 0.05", "base_lr: 0.02")
    other = re.sub(r"lr = (\S+)", lambda m: f"lr = {float(m[1]) * 0.4:.6g}", other)
    split = re.compile(r"(?m)^(?=[IWEF]\d{4} )")
    first, second = split.split(log)[1:], split.split(other)[1:]
    setup = len(split.split(until(log, "Iteration 0, Testing"))) - 1
    mixed = first[:setup] + second[:setup]
    for one, two in zip(first[setup:], second[setup:]):
        mixed += [one, two]
    records = reader.all_of("".join(mixed))
    assert [r.policy.params["k0"] for r in records] == [0.05, 0.02]
    assert [m.top1 for m in records[0].measurements] == [m.top1 for m in whole.measurements]
    assert [m.iteration for m in records[1].measurements] == [0, 50, 100, 150, 200]


def test_one_training_of_several_that_cannot_be_understood(log, reader):
    other = log.replace("max_iter: 200\n", "").replace(":", ":", 1)
    other = re.sub(r"(?m)^([IWEF]\d{4} \S+\.\d{4})\d\d ", r"\g<1>77 ", other)
    record = reader.one(log + other)
    assert record.status == "finished"
    assert reader.noted("one training of several is left out")


@pytest.fixture
def two_files(log, resumed, tmp_path):
    """A training that was killed, and its continuation, as glog leaves them: a file for each process."""
    folder = tmp_path / "my logs"
    folder.mkdir()
    paths = [folder / "caffe.INFO.1", folder / "caffe.INFO.2"]
    for path, text in zip(paths, (until(log, "Iteration 150, Testing"), resumed)):
        path.write_text(text)
    return paths


def read(paths, messages):
    refused: list = []
    found = records_from_logs(paths, messages, note=lambda text: None, refuse=refused.append)
    assert not refused
    return [record for _, record in found]


def test_a_run_in_two_files_is_that_of_one_file(two_files, reader, messages):
    (whole,) = reader.all_of(two_files[0].read_text() + two_files[1].read_text())
    assert whole.status == "finished" and [m.iteration for m in whole.measurements] == [
        0,
        50,
        100,
        150,
        200,
    ]
    for paths in (
        two_files,
        two_files[::-1],
        [*two_files, two_files[1]],
    ):  # one of them by its link, too
        (record,) = read(paths, messages)
        assert record == replace(whole, origin=f"{two_files[0]}, {two_files[1]}")


def test_a_run_in_two_files_whose_snapshots_have_a_blank(two_files, messages):
    for path in two_files:
        text = path.read_text().replace("from tiny_iter_100", "from my runs/my tiny_iter_100")
        path.write_text(re.sub(r'(snapshot_prefix: )".*"', r'\1"my runs/my tiny"', text))
    (whole,) = read(two_files, messages)
    assert [m.iteration for m in whole.measurements] == [0, 50, 100, 150, 200]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("from tiny_iter_100", "from other_iter_100"),
        lambda text: text.replace("from tiny_iter_100", "from tiny_iter_200"),
        lambda text: text.replace("weight_decay: ", "weight_decay: 1"),
    ],
    ids=["another snapshot", "an iteration that was not reached", "another solver"],
)
def test_another_trainings_continuation_is_a_run_of_its_own(two_files, messages, change):
    two_files[1].write_text(change(two_files[1].read_text()))
    assert len(read(two_files, messages)) == 2


def test_parts_that_came_in_apart_are_told(two_files, tmp_path, fresh, capsys):
    for order in (two_files, two_files[::-1]):
        database = shutil.copy(fresh, tmp_path / "lr.sqlite")

        def run(*arguments, database=database):
            assert db.main(["--db", str(database), *map(str, arguments)]) == 0
            return capsys.readouterr()

        run("import-log", order[0])
        told = run("import-log", order[1]).err
        assert f"then db import-log '{two_files[0]}' '{two_files[1]}'" in told
        run("delete", "--yes", re.search(r"db delete (\S+),", told)[1])
        shown = run("import-log", *two_files)
        assert shown.out == "logs: 1 new or completed, 0 already there\n"
        assert "continue" not in shown.err
        with Database.open(str(database)) as opened:
            (kept,) = opened.runs(source="imported", measurements=True)
        assert (kept.status, len(kept.measurements)) == ("finished", 5)


@pytest.mark.parametrize("together", [True, False])
def test_a_continuation_with_another_lr_policy_is_not_said_to_be_a_part(
    two_files, tmp_path, fresh, capsys, together
):
    database = str(shutil.copy(fresh, tmp_path / "lr.sqlite"))
    text = re.sub(r'lr_policy: "\w+"', 'lr_policy: "fixed"', two_files[1].read_text())
    two_files[1].write_text(re.sub(r"(Iteration \d+, lr = )\S+", r"\g<1>0.01", text))
    for files in [two_files] if together else [[file] for file in two_files]:
        assert db.main(["--db", database, "import-log", *map(str, files)]) == 0
        assert "to make them one run" not in capsys.readouterr().err
    with Database.open(database) as opened:
        assert len(list(opened.runs(source="imported"))) == 2


def test_a_continuation_that_the_stored_run_would_refuse_is_not_said_to_be_a_part(
    two_files, log, tmp_path, fresh, capsys
):
    """The first one was not killed: it has other tests after the snapshot, and no reason for that."""
    database = str(shutil.copy(fresh, tmp_path / "lr.sqlite"))
    two_files[0].write_text(log)
    two_files[1].write_text(
        changed(two_files[1].read_text(), r"(Test net output #\d+: accuracy = )\S+", "0.123")
    )
    for file in two_files:
        assert db.main(["--db", database, "import-log", str(file)]) == 0
    assert "to make them one run" not in capsys.readouterr().err


def test_parts_that_could_not_be_joined_are_not_said_to_be_parts(
    two_files, tmp_path, fresh, capsys
):
    """Of the solver state's name the records say nothing, but the import has compared it."""
    database = str(shutil.copy(fresh, tmp_path / "lr.sqlite"))
    text = two_files[1].read_text().replace("from tiny_iter_100", "from other_iter_100")
    two_files[1].write_text(text)
    assert db.main(["--db", database, "import-log", *map(str, two_files)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "logs: 2 new or completed, 0 already there\n"
    assert "to make them one run" not in shown.err


# -- how it ended ----------------------------------------------------------------------------------


def infinite_at(log: str, iteration: int) -> str:
    """The log where average_loss smooths over one infinite loss: the average never recovers."""

    def smoothed(match: re.Match[str]) -> str:
        t = int(match[2])
        return match[1] + ("inf" if t == iteration else "nan" if t > iteration else match[3])

    text = log.replace("display: 10", "display: 10\naverage_loss: 20")
    return re.sub(r"(Iteration (\d+)\b.*, loss = )(\S+)", smoothed, text)


def test_an_average_that_never_recovers_is_no_divergence(log, reader):
    whole = reader.one(log)
    record = reader.one(infinite_at(log, 60))
    assert (record.status, record.reason) == ("finished", None)
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]
    assert all(m.train_loss is not None for m in record.measurements[1:])


def test_an_average_that_never_recovers_of_a_regression(log, reader):
    """Without losses of single iterations, the tests tell that the net still learns."""
    text = re.sub(r"(?m)^.*Train net output.*\n", "", infinite_at(log, 60))
    text = re.sub(r"(?m)^.*Test net output #\d: (?:accuracy|top5) .*\n", "", text)
    text = re.sub(r'(?ms)^layer \{\n  name: "(?:accuracy|top5)"\n.*?^\}\n', "", text)
    text = text.replace("SoftmaxWithLoss", "EuclideanLoss").replace(
        "output #1: loss", "output #0: loss"
    )
    record = reader.one(text)
    assert (record.status, record.task_type) == ("finished", "other")
    assert all(m.test_loss is not None and m.top1 is None for m in record.measurements)


def test_a_loss_that_stays_infinite_is_a_divergence(log, reader):
    text = re.sub(
        r"((?:Iteration|Train net output|Test net output) .*loss = )\S+(?: \(\* 1 = \S+ loss\))?",
        lambda m: (
            m[0]
            if " 0, " in m[0]
            else m[1] + "nan (* 1 = nan loss)" * ("output" in m[1]) + "nan" * ("output" not in m[1])
        ),
        log,
    )
    assert reader.one(text).status == "diverged"


# -- outputs ---------------------------------------------------------------------------------------


def test_every_output_of_a_test(log, reader):
    measured = reader.one(log).measurements
    shown = {
        name: [float(v) for v in re.findall(rf"Test net output #\d: {name} = (\S+)", log)]
        for name in ("accuracy", "top5", "loss")
    }
    assert [m.outputs for m in measured] == [
        {name: values[i] for name, values in shown.items()} for i in range(len(measured))
    ]


def test_a_name_may_have_blanks(log, reader):
    """Caffe takes any text for a blob; the net's text and what Caffe says of its layers have it, too."""
    text = re.sub(r"\btop5\b", "top 5 of all", log)
    plain, found = reader.one(log), reader.one(text)
    assert [m.outputs.pop("top 5 of all") for m in found.measurements] == [
        m.outputs.pop("top5") for m in plain.measurements
    ]
    assert found.measurements == plain.measurements
    assert not reader.notes


def test_a_vector_has_its_elements_numbered(log, reader):
    """As an Accuracy layer with a second top prints its classes."""
    last = re.compile(r"(?m)^(.*Test net output #)2(: .*)\n")
    more = "".join(rf"\g<1>{k}: per_class = {v}\n" for k, v in ((3, 0.25), (4, 0.5), (5, 1)))
    measured = reader.one(last.sub(rf"\g<1>2\2\n{more}", log)).measurements
    for m, whole in zip(measured, reader.one(log).measurements):
        assert m.outputs == {
            **whole.outputs,
            "per_class": 0.25,
            "per_class[1]": 0.5,
            "per_class[2]": 1.0,
        }
        assert (m.top1, m.test_loss) == (whole.top1, whole.test_loss)


def with_vector(log: str) -> str:
    """The log with a vector of three elements behind the other outputs."""
    elements = "".join(rf"\g<1>{k}: per_class = 0.{k}\n" for k in (3, 4, 5))
    return re.sub(r"(?m)^(.*Test net output #)2(: .*)\n", rf"\g<1>2\2\n{elements}", log)


def outputs_with_vector(measured, *elements: int) -> dict[str, float]:
    names = {3: "per_class", 4: "per_class[1]", 5: "per_class[2]"}
    return {**measured.outputs, **{names[k]: k / 10 for k in elements}}


@pytest.mark.parametrize("damaged", [3, 4])
def test_the_other_elements_of_a_vector_with_a_damaged_line_stay(log, reader, damaged):
    text = with_vector(log).replace(f"per_class = 0.{damaged}", "per_class = 0.I", 1)
    first, second = (reader.one(text).measurements[i] for i in (0, 1))
    whole = reader.one(log).measurements
    left = [k for k in (3, 4, 5) if k != damaged]
    assert first.outputs == outputs_with_vector(whole[0], *left)
    assert second.outputs == outputs_with_vector(whole[1], 3, 4, 5)


def test_a_vector_whose_beginning_no_test_shows_is_left_out(log, reader):
    text = with_vector(log).replace("per_class = 0.3", "per_class = 0.I")
    assert reader.one(text).measurements == reader.one(log).measurements


@pytest.mark.parametrize("shown", [True, False])
def test_no_value_of_a_test_without_its_first_line_is_taken_for_the_one_before(log, reader, shown):
    """The test before lacks its last outputs; the losses displayed between the two may be lost as well."""
    before, after = (m.iteration for m in reader.one(log).measurements[1:3])
    start, end = (log.index(f"Iteration {at}, Testing net") for at in (before, after))
    text = log[start:end]
    lost = r"(?m)^.*Test net output #[12].*\n" + ("" if shown else r"|^.*Iteration \d+.*\n")
    text = text[: text.index("\n") + 1] + re.sub(lost, "", text[text.index("\n") + 1 :])
    damaged = log[:start] + text + log[end:].partition("\n")[2]

    whole = {m.iteration: m for m in reader.one(log).measurements}
    found = {m.iteration: m for m in reader.one(damaged).measurements}
    assert found.keys() == whole.keys() - {after}
    assert found[before].test_loss is None and found[before].top1 == whole[before].top1
    assert found[before].outputs == {"accuracy": whole[before].outputs["accuracy"]}
    assert reader.noted("damaged line")


def test_outputs_that_are_not_numbers_are_left_out(log, reader):
    text = re.sub(r"(Test net output #\d: top5 = )\S+", r"\1-nan(ind)", log)
    measured = reader.one(text).measurements[0]
    assert "top5" not in measured.outputs
    assert measured.top1 is not None


def with_second_net(log: str, accuracy: float) -> str:
    """The log of a training with another test net, which always has this accuracy."""
    tests = re.findall(r"(?ms)^[^\n]*Testing net \(#0\)\n(?:.*?Test net output #2[^\n]*\n)", log)
    text = log
    for test in dict.fromkeys(tests):
        second = re.sub(r"accuracy = \S+", f"accuracy = {accuracy}", test.replace("(#0)", "(#1)"))
        text = text.replace(test, test + second)
    text = text.replace("test_iter: 5\n", "test_iter: 5\ntest_iter: 5\n")
    net = re.search(r"(?ms)^[^\n]*Creating test net \(#0\).*?(?=^[^\n]*Solver scaffolding)", text)
    assert net is not None
    return text.replace(net[0], net[0] + net[0].replace("(#0)", "(#1)"))


def test_several_test_nets(log, reader):
    measured = reader.one(with_second_net(log, 0.5)).measurements
    assert [(m.iteration, m.net) for m in measured][:4] == [(0, 0), (0, 1), (50, 0), (50, 1)]
    assert {m.top1 for m in measured if m.net == 1} == {50.0}
    assert [m.top1 for m in measured if m.net == 0] == [
        m.top1 for m in reader.one(log).measurements
    ]


def layer_text(name: str) -> str:
    return rf'(?ms)^layer \{{\n  name: "{name}"\n.*?^\}}\n'


@pytest.mark.parametrize("through", ["", "_prob"], ids=["scores", "softmax"])
def test_the_top_5_of_another_head_is_not_taken(log, reader, through):
    """The first head has Top-1 and Top-5, the second one, of which the accuracies are, only Top-1."""
    accuracy, top5, loss = (
        re.search(layer_text(name), log)[0] for name in ("accuracy", "top5", "loss")
    )

    def of(name: str, text: str) -> str:
        """The layer of another name, which reads the second scores."""
        return re.sub(r'(name|top): "\w+"', rf'\1: "{name}"', text).replace('"ip2"', '"fc_b"')

    second = re.search(layer_text("ip2"), log)[0].replace('"ip2"', '"fc_b"')
    softmax = "".join(
        f'layer {{ name: "{blob}_prob" type: "Softmax" bottom: "{blob}" top: "{blob}_prob" }}\n'
        for blob in ("ip2", "fc_b")
        if through
    )
    read = [
        re.sub(r'bottom: "(ip2|fc_b)"', rf'bottom: "\1{through}"', text)
        for text in (accuracy, top5, of("acc_b", accuracy))
    ]
    light = loss.replace('  top: "loss"\n', '  top: "loss"\n  loss_weight: 0.3\n')
    text = re.sub(layer_text("(?:accuracy|top5)"), "", log)
    text = text.replace(loss, "".join([second, softmax, *read, light, of("loss_b", loss)]))
    text = re.sub(r"(?m)^(.*net output #)2(: top5.*)\n", r"\g<1>2\2\n\g<1>3: acc_b = 0.25\n", text)
    found = reader.one(text)
    assert found.head == f"fc_b{through}"
    assert [(m.top1, m.top5) for m in found.measurements] == [(25.0, None)] * 5
    assert [m.outputs["top5"] for m in found.measurements] == [
        float(value) for value in re.findall(r"top5 = (\S+)", log)
    ]


def test_scores_of_2013(log, reader):
    """Caffe did not name them then: they are the net's outputs in alphabetical order."""
    text = re.sub(r"Test net output #(\d+): \S+ = (\S+).*", r"Test score #\1: \2", log)
    text = text.replace("Testing net (#0)", "Testing net")
    assert reader.one(text).measurements == reader.one(log).measurements


def test_the_two_scores_of_an_accuracy_layer_of_2013(log, reader):
    text = re.sub(r'(?ms)^layer \{\n  name: "(?:top5|loss)"\n.*?^\}\n', "", log)
    text = re.sub(r"(?m)^.*Test net output #2.*\n", "", text)
    text = re.sub(r"Test net output #(\d+): \S+ = (\S+).*", r"Test score #\1: \2", text)
    for m, whole in zip(reader.one(text).measurements, reader.one(log).measurements):
        assert (m.top1, m.test_loss) == (whole.top1, whole.test_loss)
        assert set(m.outputs) == {"accuracy", "accuracy[1]"}


# -- once more -------------------------------------------------------------------------------------


@pytest.fixture
def stored(new_database):
    """``stored(record)`` puts it, and gives whether anything of it was new, and the run as it is then."""

    def put(record):
        with Database.open(new_database) as database:
            new = database.put(record)
            return new, database.get(record.uid)

    return put


def test_the_same_log_from_another_folder_completes_the_run(
    log, reader, stored, tmp_path, monkeypatch
):
    """There the data is not at hand, and the log has not come as far."""
    monkeypatch.chdir(tmp_path)
    first = reader.one(until(log, "Iteration 150, Testing"))
    assert (first.dataset.digest, first.status) == (None, "failed")
    assert stored(first)[0]
    monkeypatch.undo()


def test_a_log_that_has_grown_and_has_its_data(
    log, reader, stored, new_database, tmp_path, monkeypatch
):
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        first = reader.one(until(log, "Iteration 150, Testing"))
        without_data = reader.one(log)
    whole = reader.one(log)
    assert first.dataset.digest is None and whole.dataset.digest is not None
    assert stored(first)[0] is True
    new, kept = stored(whole)
    assert new is True
    assert (kept.dataset, kept.status, kept.epoch) == (whole.dataset, "finished", whole.epoch)
    assert kept.measurements == whole.measurements
    # It stays known when the log comes again from where the data is not.
    new, kept = stored(without_data)
    assert new is False
    assert (kept.dataset, kept.epoch) == (whole.dataset, whole.epoch)
    # And when an older copy comes again.
    new, kept = stored(first)
    assert (new, kept.status, len(kept.measurements)) == (False, "finished", 5)
    with Database.open(new_database) as database:
        assert sum(database.runs_of_tasks().values()) == 1 + sum(
            1 for run in database.runs() if run.source == "paper"
        )


def test_a_policy_that_only_the_whole_log_tells(log, reader, stored):
    """A plateau that has not come yet is none."""
    text = re.sub(
        r"Iteration (\d+), lr = \S+",
        lambda m: f"Iteration {m[1]}, lr = {0.05 if int(m[1]) < 130 else 0.005}",
        log.replace('"inv"', '"plateau"'),
    )
    first = reader.one(until(text, "Iteration 100, Testing"))
    assert first.policy.text == "FIX(k0=0.05)"
    stored(first)
    _, kept = stored(reader.one(text))
    assert kept.policy.text == "FIX(k0=0.05) ; 130: FIX(k0=0.005)"


def test_a_net_that_is_whole_replaces_the_part(log, reader, stored, tmp_path, monkeypatch):
    damaged = log.replace("    num_output: 16", "    num_output: 1\x016^C")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        part = reader.one(damaged)
    assert part.network.name == "tiny (partial)"
    whole = reader.one(damaged)  # its file is at hand
    assert whole.network.name == "tiny"
    stored(part)
    new, kept = stored(whole)
    assert (new, kept.network) == (True, whole.network)
    new, kept = stored(part)
    assert (new, kept.network) == (False, whole.network)


def test_a_start_that_is_known_better(resumed, reader, stored, tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        vague = reader.one(resumed)
    exact = reader.one(resumed)
    assert exact.start.known and not vague.start.known
    stored(vague)
    assert stored(exact)[1].start == exact.start
    assert stored(vague)[1].start == exact.start


def changed(log: str, pattern: str, value: str) -> str:
    """The log with another value at its last place of the pattern, whose group 1 stays."""
    place = list(re.finditer(pattern, log))[-1]
    return log[: place.start()] + place[1] + value + log[place.end() :]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: changed(log, r"(Test net output #\d+: accuracy = )\S+", "0.123"),
        lambda log: (
            changed(log[: log.index("Iteration 150, Testing")], r"(: accuracy = )\S+", "0.123")
            + log[log.index("Iteration 150, Testing") :]
        ),
        lambda log: re.sub(r"(Iteration \d+, lr = )\S+", r"\g<1>0.003", log),
        lambda log: log.replace("Starting Optimization", "Finetuning from other.caffemodel"),
        lambda log: re.sub(r"(batch_size|Top shape): (\d+)", r"\1: 1\2", log),
        lambda log: changed(log, r"(: accuracy = )\S+", "0.123").replace(
            "Optimization Done", "Done"
        ),
    ],
    ids=["last test", "a test", "LR", "start", "batch", "last test of a shorter log"],
)
def test_other_content_is_a_conflict(log, reader, tmp_path, fresh, change):
    whole, other = reader.one(log), reader.one(change(log))
    assert other.uid == whole.uid
    for first, second in ((whole, other), (other, whole)):
        path = shutil.copy(fresh, tmp_path / "lr.sqlite")
        with Database.open(str(path)) as database:
            database.put(first)
            before = database.get(first.uid)
            with pytest.raises(ConflictError, match="other content"):
                database.put(second)
            assert database.get(first.uid) == before


def test_a_killed_training_that_was_resumed_may_repeat_tests_differently(
    log, resumed, reader, new_database
):
    """What came after the snapshot of iteration 100 was done again."""
    killed = changed(until(log, "Iteration 200, Testing"), r"(: accuracy = )\S+", "0.123")
    whole = reader.one(killed + resumed)
    with Database.open(new_database) as database:
        database.put(reader.one(killed))
        assert database.put(whole) is True
        kept = database.get(whole.uid)
    assert (kept.status, kept.measurements) == ("finished", whole.measurements)


def test_a_second_test_net_may_see_other_images_at_the_snapshot(log, resumed, reader, new_database):
    """Caffe tests again at iteration 100: the first net begins with the same images."""
    killed = with_second_net(until(log, "Iteration 150, Testing"), 0.5)
    whole = reader.one(killed + with_second_net(resumed, 0.25))
    with Database.open(new_database) as database:
        database.put(reader.one(killed))
        assert database.put(whole) is True
        kept = database.get(whole.uid)
    shown = [(m.iteration, m.top1) for m in kept.measurements if m.net == 1]
    assert shown == [(0, 50.0), (50, 50.0), (100, 25.0), (150, 25.0), (200, 25.0)]


# -- the command -----------------------------------------------------------------------------------


def test_import_log(log, trained, tmp_path, capsys, new_database):
    assert db.main(["--db", new_database, "import-log", str(trained.path / "a.log")]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("logs: 1 new or completed, 0 already there\n", "")
    # Its second half says what is to be known of it; a log without its beginning takes the solver.
    cut = tmp_path / "cut.log"
    cut.write_text(log[len(until(log, "Iteration 0, Testing")) :])
    code = cli.run(db.main, ["--db", new_database, "import-log", str(cut)])
    assert code == 1
    assert "--solver FILE" in capsys.readouterr().err
    arguments = ["import-log", "--solver", str(trained.path / "solver.prototxt"), str(cut)]
    assert db.main(["--db", new_database, *arguments]) == 0
    shown = capsys.readouterr()
    assert "note: " in shown.err and "its start is unknown" in shown.err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_import_points_to_import_log(log, tmp_path, capsys, fresh, encoding):
    file = tmp_path / "caffe.log"
    file.write_bytes(log.encode(encoding))
    assert cli.run(db.main, ["--db", str(fresh), "import", str(file)]) == 2
    line = capsys.readouterr().err.strip()
    assert line.endswith(
        f"is a log of Caffe; import it with: python -m lrbench_caffe.db import-log {file}"
    )
    assert "\n" not in line


def test_notes_name_the_file(resumed, reader):
    reader.one(resumed)
    assert reader.notes and all(note.startswith(f"{reader.path}: ") for note in reader.notes)


def test_without_anybody_to_tell(resumed, reader, messages):
    reader.one(resumed)
    assert len(records_from_log(reader.path, messages)) == 1
    assert replace(reader.one(resumed)).started < math.inf
