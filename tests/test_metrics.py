"""The paper's metrics, against values by hand and against a slow oracle that loops over samples."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.metrics import (
    METRICS,
    OF_SCORES,
    RANKED,
    Counts,
    Measurement,
    TestMetrics,
    best,
    scalar_names,
)
from lrbench_caffe.records import PolicySummary
from lrbench_caffe.runtime import counting
from lrbench_caffe.runtime.counting import Counter

NAN = float("nan")

# Four samples, three classes.           true class   verdict   probability of the true class
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],  # ................ 0         right     0.7
        [0.5, 0.3, 0.2],  # ................ 0         right     0.5
        [0.1, 0.8, 0.1],  # ................ 1         right     0.8
        [0.6, 0.3, 0.1],  # ................ 2         wrong     0.1
    ]
)
LABELS = np.array([0, 0, 1, 2])


def counts(counter: Counter) -> Counts:
    sent = (*counting.NUMBERS, *counting.BY_CLASS)
    return Counts(**{name: getattr(counter, name) for name in sent})


def metrics(scores, labels, form="logits", **options) -> TestMetrics:
    counter = Counter(form, **options)
    counter.add(np.asarray(scores, dtype=np.float32), np.asarray(labels, dtype=np.float32))
    assert counter.problem is None
    found = counts(counter).metrics()
    assert found is not None
    return found


def problem(scores, labels, form="logits", **options) -> str:
    counter = Counter(form, **options)
    counter.add(np.asarray(scores, dtype=np.float32), np.asarray(labels, dtype=np.float32))
    assert counter.problem is not None
    return counter.problem


def field_names(record: type) -> set[str]:
    return {f.name for f in dataclasses.fields(record)}


def test_every_metric_that_is_declared_is_measured_and_summarised():
    assert field_names(TestMetrics) - {"samples", "silent_classes", "cross_entropy"} == {*OF_SCORES}
    beside = {"iteration", "lr", "seconds", "samples", "silent_classes", "net", "outputs"}
    assert field_names(Measurement) - beside == set(METRICS)
    spreads = {f.name for f in dataclasses.fields(PolicySummary) if f.type == "Spread | None"}
    assert spreads - {"iterations"} == set(RANKED)


def test_everything_that_is_counted_is_sent():
    assert field_names(Counts) == {*counting.NUMBERS, *counting.BY_CLASS}


def check_by_hand(found: TestMetrics) -> None:
    assert found.samples == 4
    assert found.top1 == 75.0
    assert found.top5 == 100.0  # Top-3 of three classes
    assert found.ac == pytest.approx((0.7 + 0.5 + 0.8) / 3, rel=1e-6)
    # The mean is 20/30; deviations 1/30, -5/30, 4/30; their squares' mean (1 + 25 + 16) / 900 / 3.
    assert found.cd == pytest.approx(math.sqrt(14) / 30, rel=1e-6)
    # Class 0 has 0.6, class 1 has 0.8, class 2 no sample that is right.
    assert found.cdac == pytest.approx(0.1, rel=1e-6)
    assert found.silent_classes == 1
    assert found.cross_entropy == pytest.approx(-math.log(0.7 * 0.5 * 0.8 * 0.1) / 4, rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 3.0, -50.0])
def test_by_hand_from_logits(shift):
    # softmax(log p + anything) is p.
    check_by_hand(metrics(np.log(PROBABILITIES) + shift, LABELS))


def test_by_hand_from_probabilities():
    check_by_hand(metrics(PROBABILITIES, LABELS, "probabilities"))


def test_labels_may_have_any_shape():
    check_by_hand(metrics(np.log(PROBABILITIES), LABELS.reshape(4, 1, 1, 1)))


@pytest.mark.parametrize(
    ("label", "top1", "top5"), [(0, 100, 100), (1, 0, 100), (4, 0, 100), (5, 0, 0)]
)
def test_top_5_of_seven_classes(label, top1, top5):
    found = metrics([[7, 6, 5, 4, 3, 2, 1]], [label])
    assert (found.top1, found.top5) == (top1, top5)


def test_a_tie_is_wrong_as_in_caffes_accuracy_layer():
    assert metrics([[1, 1, 0]], [0]).top1 == 0
    assert metrics([[1, 0, 0]], [0]).top1 == 100
    # All the same: with 5 classes four others are as good, with 6 there are five.
    assert metrics([[0] * 5], [2]).top5 == 100
    assert metrics([[0] * 6], [2]).top5 == 0


def test_two_classes():
    found = metrics([[2, 1], [2, 1]], [0, 1])
    assert (found.top1, found.top5) == (50, 100)


def test_nothing_right():
    found = metrics([[0, 1, 0]], [0])
    assert found.top1 == 0
    assert math.isnan(found.ac) and math.isnan(found.cd) and math.isnan(found.cdac)
    assert found.silent_classes == 3
    assert found.cross_entropy == pytest.approx(math.log(2 + math.e))


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_nan_is_no_hit(form):
    found = metrics([[NAN] * 6, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]], [0, 0], form)
    assert (found.samples, found.top1, found.top5) == (2, 50, 50)
    assert not math.isnan(found.ac)
    assert math.isnan(found.cross_entropy)


@pytest.mark.parametrize("form", ["logits", "probabilities"])
@pytest.mark.parametrize("label", [0, 1])
def test_the_nan_of_another_class_is_no_hit_either(form, label):
    """Sample 0 has one of class 0 or of class 2; infinite scores of class 2 are none."""
    nan_of = [0.1, 0.1, 0.1]
    nan_of[2 * label] = NAN
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics([nan_of, [0.1, 0.8, 0.1]], [1, 1], form)
        worst = metrics([[0.1, 0.8, math.inf], [0.1, 0.8, -math.inf], [0.1, 0.9, 0.1]], [1, 1, 1])
    assert (found.samples, found.top1, found.top5) == (2, 50, 50)
    assert found.ac == pytest.approx(
        0.8 if form == "probabilities" else 1 / (1 + 2 * math.exp(-0.7))
    )
    assert (found.cd, found.cdac) == (0, 0)
    assert worst.top1 == pytest.approx(200 / 3)


def test_huge_logits_do_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics([[1e4, 0, -1e4], [1e4, 0, -1e4]], [0, 2])
    assert (found.top1, found.ac, found.cd) == (50, 1, 0)
    assert found.cross_entropy == (0 + 2e4) / 2


def test_probability_zero_counts_as_in_caffes_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics([[1, 0]], [1], "probabilities")
    assert found.cross_entropy == pytest.approx(87.3365, abs=1e-4)  # -log(FLT_MIN)


def test_ignored_labels_do_not_count():
    scores = np.log(np.vstack([PROBABILITIES, [[0.2, 0.3, 0.5]] * 3]))
    labels = [*LABELS, 255, 255, 255]
    check_by_hand(metrics(scores, labels, ignore_label=255))
    # An Accuracy layer counts what the loss alone ignores, unless it is none of the classes.
    check_by_hand(metrics(scores, labels, ignore_outside=255))
    assert metrics(scores, labels, ignore_label=255, ignore_outside=0).samples == 4
    assert problem(scores, labels) == "labels from 0 to 255, but 3 classes (labels 0 to 2)"


def test_all_ignored_is_no_result():
    counter = Counter("logits", ignore_label=7)
    counter.add(np.float32([[1, 2]]), np.float32([7]))
    assert counter.problem is None
    assert counts(counter).metrics() is None


def test_spatial_scores():
    # One image of 2 x 2 pixels, three classes: channels first, as Caffe has them.
    scores = np.log(PROBABILITIES).T.reshape(1, 3, 2, 2)
    check_by_hand(metrics(scores, LABELS.reshape(1, 1, 2, 2), axis=1))
    check_by_hand(
        metrics(np.log(PROBABILITIES).reshape(1, 2, 2, 3), LABELS.reshape(1, 2, 2), axis=-1)
    )


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 3], "labels from 0 to 3"), ([-1, 2], "labels from -1 to 2")]
)
def test_label_out_of_range(labels, message):
    assert problem([[1, 2, 3]] * 2, labels) == f"{message}, but 3 classes (labels 0 to 2)"


def test_a_label_that_is_nan():
    assert "but 3 classes" in problem([[1, 2, 3]] * 2, [0, NAN])


def test_another_number_of_labels():
    assert problem([[1, 2, 3]] * 2, [0, 1, 2]) == "2 score vectors for 3 labels"


# -- a sigmoid's two classes -----------------------------------------------------------------------


def test_sigmoid_by_hand():
    # Logits of class 1: log(p / (1 - p)). Right: p = 0.8 of class 1, p = 0.3 of class 0 (its own is
    # 0.7).
    logits = np.log(np.array([0.8, 0.3, 0.4, 0.9]) / np.array([0.2, 0.7, 0.6, 0.1]))
    found = metrics(logits[:, None], [[1], [0], [1], [0]], "sigmoid")
    assert (found.samples, found.top1, found.top5, found.silent_classes) == (4, 50, 100, 0)
    assert (found.ac, found.cd, found.cdac) == pytest.approx((0.75, 0.05, 0.05), rel=1e-6)
    assert found.cross_entropy == pytest.approx(-math.log(0.8 * 0.7 * 0.4 * 0.1) / 4, rel=1e-6)


def test_a_sigmoid_of_one_half_is_class_0():
    assert metrics([0.0], [0], "sigmoid").top1 == 100
    assert metrics([0.0], [1], "sigmoid").top1 == 0


def test_labels_of_a_sigmoid():
    assert metrics([[1.0], [2.0]], [1, -1], "sigmoid", ignore_label=-1).samples == 1
    assert (
        problem([1.0, 2.0], [1, -1], "sigmoid")
        == "labels from -1 to 1, but 2 classes (labels 0 to 1)"
    )
    assert (
        problem([1.0, 2.0], [1, 0.5], "sigmoid")
        == "targets between 0 and 1, which are not class labels"
    )
    assert problem([[1.0, 2.0]], [1], "sigmoid") == "2 score vectors for 1 labels"


# -- against an oracle -----------------------------------------------------------------------------


def oracle(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics straight from their definitions."""
    classes = logits.shape[1]
    hits = {1: 0, 5: 0}
    confidences: list[list[float]] = [[] for _ in range(classes)]
    surprise = []
    for x, y in zip(logits.astype(float), labels):
        p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        rank = sum(x[j] >= x[y] for j in range(classes) if j != y)
        hits[1] += rank == 0
        hits[5] += rank < 5
        surprise.append(-math.log(p[y]))
        if rank == 0:
            confidences[y].append(p[y])
    everything = [p for of_class in confidences for p in of_class]
    heard = [float(np.mean(of_class)) for of_class in confidences if of_class]
    return {
        "samples": len(labels),
        "top1": 100 * hits[1] / len(labels),
        "top5": 100 * hits[5] / len(labels),
        "ac": float(np.mean(everything)) if everything else NAN,
        "cd": float(np.std(everything)) if everything else NAN,
        "cdac": float(np.std(heard)) if heard else NAN,
        "silent_classes": classes - len(heard),
        "cross_entropy": float(np.mean(surprise)),
    }


@st.composite
def scored_sets(draw) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits on a coarse grid, so that ties happen; labels that are often right; places to cut."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = (np.round(rng.normal(0, 2, (count, classes)) * 4) / 4).astype(np.float32)
    labels = np.where(
        rng.random(count) < 0.6, logits.argmax(axis=1), rng.integers(0, classes, count)
    )
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=6)))
    return logits, labels, cuts


@given(scored_sets())
def test_any_batches_and_any_merging_agree_with_the_oracle(test_set):
    logits, labels, cuts = test_set
    whole = Counter("logits")
    for x, y in zip(np.split(logits, cuts), np.split(labels, cuts)):
        whole.add(x, y)
    expected = pytest.approx(oracle(logits, labels), rel=1e-9, abs=1e-9, nan_ok=True)
    assert vars(counts(whole).metrics()) == expected


@given(scored_sets(), st.integers(1, 60))
def test_blocks_of_any_size_agree_with_the_oracle(test_set, block):
    logits, labels, _ = test_set
    count, classes = logits.shape
    maps = logits.T.reshape(1, classes, count)  # one record, and a position for each sample
    for scores, axis in ((logits, 1), (maps, 1), (logits.reshape(1, count, classes), 2)):
        with mock.patch.object(counting, "BLOCK", block):
            assert vars(metrics(scores, labels, axis=axis)) == pytest.approx(
                oracle(logits, labels), rel=1e-9, abs=1e-9, nan_ok=True
            )


def test_large_maps_are_computed_in_32_bits():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (50, 7)).astype(np.float32)
    labels = np.where(rng.random(50) < 0.7, logits.argmax(axis=1), 0)
    with mock.patch.object(counting, "EXACT", 0):
        found = metrics(logits.T.reshape(1, 7, 5, 10), labels.reshape(1, 1, 5, 10))
    assert vars(found) == pytest.approx(oracle(logits, labels), rel=1e-6)


def test_more_classes_than_a_byte_counts():
    scores = np.tile(np.arange(600, dtype=np.float32), (3, 1))
    found = metrics(scores, [599, 595, 0])
    assert (found.top1, found.top5) == pytest.approx((100 / 3, 200 / 3))


def test_the_entropy_is_summed_where_it_is_asked_for():
    counter = Counter("logits", entropy=False)
    counter.add(np.log(PROBABILITIES).astype(np.float32), LABELS.astype(np.float32))
    found = counts(counter).metrics()
    assert (found.cross_entropy, found.top1) == (0, 75)
    assert found.ac == pytest.approx((0.7 + 0.5 + 0.8) / 3, rel=1e-6)


@given(scored_sets())
def test_a_softmax_changes_nothing(test_set):
    logits, labels, _ = test_set
    exact = logits.astype(np.float64)
    p = np.exp(exact - exact.max(axis=1, keepdims=True))
    counter = Counter("probabilities")
    counter.add(p / p.sum(axis=1, keepdims=True), labels)
    assert vars(counts(counter).metrics()) == pytest.approx(
        oracle(logits, labels), rel=1e-9, abs=1e-9, nan_ok=True
    )


# -- measurements ----------------------------------------------------------------------------------


def measurement(iteration: int, top1: float | None) -> Measurement:
    return Measurement(iteration, 0.1, top1, None, None, None, None, None, None, None, 0.0)


@pytest.mark.parametrize(
    ("top1", "iteration"),
    [
        ([10, 90, 80, 90], 100),  # the first of equals
        ([0, 0], 0),
        ([None, 5, None], 100),
    ],
)
def test_best_is_the_first_highest(top1, iteration):
    found = best([measurement(100 * i, value) for i, value in enumerate(top1)])
    assert found is not None
    assert found.iteration == iteration


def test_best_of_nothing():
    assert best([]) is None
    assert best([measurement(0, None)]) is None


def test_best_without_a_loss_is_the_last_with_outputs():
    rows = [measurement(100 * i, None) for i in range(4)]
    rows[1:3] = [replace(row, outputs={"map": 0.5}) for row in rows[1:3]]
    found = best(rows)
    assert found is not None
    assert found.iteration == 200


# -- outputs ---------------------------------------------------------------------------------------


def test_the_mean_of_an_output_is_caffes_in_32_bits():
    output = counting.Output("loss", 1.0)
    for value in (0.1, 0.2, 0.4):
        output.add(np.array([value], np.float32))
    f = np.float32
    assert output.means(3) == [(f(0.1) + f(0.2) + f(0.4)) / f(3)]
    assert output.means(3)[0].dtype == np.float32


def test_an_output_whose_length_varies_has_no_mean():
    output = counting.Output("boxes", 0.0)
    for length in (2, 2, 3):
        output.add(np.ones((1, length), np.float32))
    assert (output.means(3), output.varies) == ([], True)


def test_an_output_of_too_many_values_is_not_added_up():
    output = counting.Output("map", 0.0)
    output.add(np.ones((1, counting.LONGEST + 1), np.float32))
    assert (output.means(1), output.varies) == ([], False)


# Rows of a DetectionEvaluate layer. Class 1 has 4 objects, 3 of them found at the places 1, 3 and
# 4; class 2 has one object that is not found at all.
DETECTIONS = [
    [[-1, 1, 3, -1, -1], [0, 1, 0.9, 1, 0], [0, 1, 0.8, 0, 1], [0, 1, 0.85, 0, 0]],
    [
        [-1, 1, 1, -1, -1],
        [-1, 2, 1, -1, -1],
        [1, 1, 0.7, 1, 0],
        [1, 1, 0.6, 1, 0],
        [1, 1, 0.5, 0, 1],
    ],
]


@pytest.mark.parametrize(
    ("version", "area"),
    [
        # Recall rises by 1/4 at the places 1, 3 and 4, where the precision is 1, 2/3 and 3/4.
        ("Integral", (1 + 2 / 3 + 3 / 4) / 4),
        # With the best precision from the place before each of them on: 1, 3/4 and 3/4.
        ("MaxIntegral", (1 + 3 / 4 + 3 / 4) / 4),
        # The best precision from recall 0, 0.1, 0.2 on is 1, from 0.3 to 0.7 it is 3/4, from 0.8 on
        # nothing.
        ("11point", (3 * 1 + 5 * 3 / 4) / 11),
    ],
)
def test_mean_average_precision_by_hand(version, area):
    detections = counting.Detections("detection_eval", version)
    for rows in DETECTIONS:
        detections.add(np.array(rows, np.float32).reshape(1, 1, -1, 5))
    assert detections.means(2) == [pytest.approx((area + 0) / 2)]


def test_no_objects_have_no_average_precision():
    assert counting.Detections("detection_eval", "Integral").means(1) == []


def test_elements_of_vectors_are_not_single_numbers():
    # The second element of iou and the first of dice are NaN, which are not recorded.
    assert scalar_names([["l1", "iou", "iou[2]", "iou[3]", "dice[1]"]]) == ["l1"]
    # In the first test only the first element is finite.
    assert scalar_names([["iou", "l1"], ["iou", "iou[3]", "late"]]) == ["l1", "late"]
    assert scalar_names([["y", "y[x]", "[0]"]]) == ["y", "y[x]", "[0]"]  # names of blobs


def test_rows_of_other_versions_are_read():
    row = {**vars(measurement(5, 50.0)), "something_new": 1}
    assert Measurement.from_json(row) == measurement(5, 50.0)
    del row["samples"], row["net"]  # fields with defaults may be missing
    assert Measurement.from_json(row) == measurement(5, 50.0)


def test_where_there_is_no_top1_the_first_lowest_test_loss_is_the_best():
    losses = [2.0, 0.5, math.nan, 0.5, None, 1.0]
    rows = [
        dataclasses.replace(measurement(100 * i, None), test_loss=v) for i, v in enumerate(losses)
    ]
    found = best(rows)
    assert found is not None and found.iteration == 100
    mixed = best([*rows, dataclasses.replace(measurement(600, 10.0), test_loss=9.0)])
    assert mixed is not None and mixed.iteration == 600  # Top-1 decides where there is one
