"""How many batches bring a resumed run's data to where it stood; the expected numbers are by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.prototxt.sources import Source
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.replay import replay_plan

DATA = 'layer { name: "d" type: "Data" top: "x" top: "y" }'
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }'
DUMMY = 'layer { name: "noise" type: "DummyData" top: "z" }'
PRODUCT = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" }'


@pytest.fixture
def plan(messages):
    """``plan(...)``: the plan for a solver that is described by a few numbers."""

    def net(text: str, phase: str) -> PhaseNet:
        layers = text_format.Parse(text, messages.new("NetParameter")).layer
        return PhaseNet("net", "net.prototxt", phase, "", tuple(layers))

    def plan(
        iteration: int,
        *,
        samples: int | None = 100,
        batch: int = 10,
        random: bool = False,
        layers: str = DATA + PRODUCT,
        iter_size: int = 1,
        tests: tuple[tuple[int, int, int], ...] = (),
        test_random: bool = False,
        test_layers: str = DATA + PRODUCT,
        tested: bool = False,
        test_interval: int = 10,
        max_iter: int = 100_000,
    ) -> list[dict]:
        def source(n: int | None, size: int, chance: bool) -> Source:
            return Source("d", "lmdb", size, n, (1, 2, 2), chance)

        message = messages.new("SolverParameter")
        message.iter_size = iter_size
        nets = [
            TestNet(net(test_layers, "TEST"), source(n, size, test_random), passes, None)
            for n, size, passes in tests
        ]
        train = net(layers, "TRAIN")
        known = (
            source(samples, batch, random) if "Data" in layers.replace("DummyData", "") else None
        )
        solver = Solver(Path("s"), message, {}, train, known, nets)
        policy = parse("FIX(k0=0.1)")
        monitor = ScheduleMonitor(
            policy, max_iter=max_iter, test_interval=test_interval if tests else 0
        )
        done = monitor.tests_before(iteration) + [iteration] * (
            tested and monitor.test_due(iteration)
        )
        return replay_plan(solver, iteration, done)

    return plan


def passes(plan: list[dict]) -> dict[int, int]:
    return {entry["net"]: entry["passes"] for entry in plan}


def test_the_cursor_goes_round(plan):
    # 100 samples in batches of 10: every 10 batches it is at the first one again.
    assert plan(7) == [{"net": 0, "layers": [["d", 0]], "reshape": False, "passes": 7}]
    assert plan(23) == [{"net": 0, "layers": [["d", 0]], "reshape": False, "passes": 3}]
    assert plan(20) == []


@pytest.mark.parametrize(
    ("samples", "batch", "iteration", "expected"),
    [
        (100, 30, 7, 7),  # 10 batches of 30 are 3 rounds
        (100, 30, 13, 3),
        (7, 3, 20, 6),  # 7 batches of 3 are 3 rounds
        (10, 100, 12_345, None),  # a batch takes everything ten times over
        (50_000, 128, 60_000, 60_000 - 19 * 3125),  # gcd(50000, 128) = 16, 50000 / 16 = 3125
    ],
)
def test_batches_that_do_not_divide_the_data(plan, samples, batch, iteration, expected):
    assert passes(plan(iteration, samples=samples, batch=batch)) == (
        {} if expected is None else {0: expected}
    )


def test_iter_size_takes_more_batches(plan):
    assert passes(plan(7, iter_size=3)) == {0: 1}  # 21 batches of 10 to a round


def test_random_numbers_do_not_go_round(plan):
    # Every pass draws from the generator, so all have to be repeated: with dropout, ...
    assert plan(23, layers=DATA + DROPOUT + PRODUCT) == [
        {"net": 0, "layers": [["d", 0], ["drop", 0]], "reshape": False, "passes": 23}
    ]
    # ... with random crops or flips, ...
    assert passes(plan(23, random=True)) == {0: 23}
    # ... and where something else makes data beside the data layer.
    assert plan(23, layers=DATA + DUMMY) == [
        {"net": 0, "layers": [["d", 0], ["noise", 0]], "reshape": False, "passes": 23}
    ]


def test_data_of_unknown_size(plan):
    assert passes(plan(23, samples=None)) == {0: 23}
    assert plan(23, layers=DUMMY) == [
        {"net": 0, "layers": [["noise", 0]], "reshape": False, "passes": 23}
    ]


def test_a_net_without_data_has_nothing_to_repeat(plan):
    assert plan(23, layers='layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" }') == []


def test_a_test_pass_over_everything_leaves_the_cursor_where_it_was(plan):
    assert passes(plan(20, tests=((100, 10, 10),))) == {}


def test_a_test_pass_over_a_part_does_not(plan):
    # Tests at 0, 10, 20, each 3 of 10 batches; that of iteration 30 is still to come, or done.
    assert passes(plan(30, tests=((100, 10, 3),))) == {1: 9}
    assert passes(plan(30, tests=((100, 10, 3),), tested=True)) == {1: 2}  # 12 of 10
    # Tests at 0, 10, 20, 30: 12 of 10 batches.
    assert passes(plan(35, tests=((100, 10, 3),), batch=5)) == {0: 15, 1: 2}


def test_several_test_nets(plan):
    # Two tests: 2 x 3 of 10 batches, 2 x 10 of 10, 2 x 1 of 7.
    assert passes(plan(20, tests=((100, 10, 3), (100, 10, 10), (7, 1, 1)))) == {1: 6, 3: 2}


def test_a_test_net_that_flips_draws_random_numbers(plan):
    assert passes(plan(20, tests=((100, 10, 10),), test_random=True)) == {1: 20}


def test_the_last_test_is_counted_too(plan):
    # Tests at 0, 10, 20 and, because it is the end, at 25.
    assert passes(plan(25, tests=((100, 10, 3),), max_iter=25, tested=True, batch=4)) == {1: 2}


def test_at_the_start_there_is_nothing_to_repeat(plan):
    assert plan(0, tests=((100, 10, 3),)) == []


def turns(plan: list[dict]) -> list[tuple[int, int]]:
    return [(entry["net"], entry["passes"]) for entry in plan]


def test_nets_that_draw_from_one_generator_take_turns(plan):
    """Tests at 0, 10 and 20, of 3 passes each; the training net alone may be summed up."""
    both = plan(25, layers=DUMMY, test_layers=DUMMY, tests=((100, 10, 3),), test_random=True)
    assert turns(both) == [(1, 3), (0, 10), (1, 3), (0, 10), (1, 3), (0, 5)]
    assert turns(plan(25, layers=DATA + DROPOUT, tests=((100, 10, 3),))) == [(0, 25), (1, 9)]


SIZES = 'layer { name: "d" type: "Data" top: "x" top: "y" data_param { batch_size: 1 } %s }'


@pytest.mark.parametrize(
    ("data", "reshape", "layers"),
    [
        (SIZES % "", True, ["d", "drop"]),
        (SIZES % "transform_param { crop_size: 4 }", False, ["d", "drop"]),
        (SIZES.replace("batch_size: 1", "batch_size: 2") % "", False, ["d", "drop"]),
        (SIZES.replace("Data", "Python") % "", False, ["d", "ip", "drop"]),  # the whole net
    ],
)
def test_dropout_of_data_that_changes_its_size(plan, data, reshape, layers):
    (entry,) = plan(7, layers=data + PRODUCT + DROPOUT, samples=None)
    assert (entry["reshape"], [name for name, _ in entry["layers"]]) == (reshape, layers)
