"""What holds for every policy: text and back, bounds, periods, the same bits one by one and in bulk."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrbench_caffe.lr import FUNCTIONS, Composition, FunctionPolicy, Trigger, parse

CYCLIC = sorted(name for name, function in FUNCTIONS.items() if function.kind == "cyclic")
RATES = st.floats(1e-8, 10)
LENGTHS = st.integers(1, 10**6)
ITERATIONS = st.integers(0, 10**7)
LISTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True).map(sorted)
TRIGGERS = st.builds(
    Trigger,
    n=st.integers(1, 99),
    metric=st.sampled_from(["top1", "test_loss"]),
    min_delta=st.floats(0, 5),
)
VALUES = {
    "gamma": st.floats(0, 1, exclude_min=True),
    "p": st.floats(0.01, 5),
    "l": LENGTHS,
    "n": st.integers(1, 99),
    "metric": st.sampled_from(["top1", "test_loss"]),
    "min_delta": st.floats(0, 5),
    "decided": LISTS,
}


@st.composite
def policies(draw, names=tuple(FUNCTIONS)):
    """Any valid policy of one function: required parameters, and the optional ones now and then."""
    entry = FUNCTIONS[draw(st.sampled_from(sorted(names)))]
    low, high = sorted(draw(st.lists(RATES, min_size=2, max_size=2, unique=True)))
    params = {"k0": low, "k1": high} if entry.kind == "cyclic" else {"k0": high}
    for parameter in entry.parameters[1:]:
        name, required = parameter.name, repr(parameter.default) == "required"
        if name == "k1":
            if not required and draw(st.booleans()):
                params["k1"] = low
        elif required or draw(st.booleans()):
            params[name] = draw(LISTS if entry.name == "NSTEP" and name == "l" else VALUES[name])
    return FunctionPolicy(entry.name, params)


@st.composite
def compositions(draw):
    singles = draw(st.lists(policies(set(FUNCTIONS) - {"PLATEAU"}), min_size=2, max_size=4))
    triggers = draw(st.integers(0, len(singles) - 1))
    starts = draw(st.lists(st.integers(1, 10**6), min_size=3, max_size=3, unique=True).map(sorted))
    known = [0, *starts][: len(singles) - triggers]
    ends = [draw(TRIGGERS) for _ in range(triggers)]
    return Composition(list(zip([*known, *ends], singles)))


@given(st.one_of(policies(), compositions()))
def test_text_and_back(policy):
    assert parse(str(policy)) == policy
    assert hash(parse(str(policy))) == hash(policy)
    assert str(parse(str(policy))) == str(policy)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert eval(repr(policy)) == policy


@pytest.mark.parametrize("name", FUNCTIONS)
@given(st.data())
@settings(max_examples=20)
def test_text_and_back_of_each_function(name, data):
    policy = data.draw(policies([name]))
    assert policy.function == name
    assert (
        parse(str(policy).lower())
        == parse(f" {str(policy).replace('=', ' = ').replace(',', ' , ')} ")
        == policy
    )


@given(policies(), st.lists(ITERATIONS, min_size=1, max_size=20))
def test_stays_within_k0_and_k1(policy, iterations):
    policy = policy.bind(10**6)
    low, high = sorted([policy.params["k0"], policy.params.get("k1", 0)])
    values = policy(iterations)
    assert np.all(values >= low)
    assert np.all(values <= np.nextafter(high, np.inf))


@given(st.one_of(policies(), compositions()), st.lists(ITERATIONS, min_size=1, max_size=40))
def test_one_by_one_and_in_bulk_are_the_same_bits(policy, iterations):
    policy = policy.bind(10**6)
    assert [policy(t) for t in iterations] == policy(iterations).tolist()


@pytest.mark.parametrize("name", [n for n in CYCLIC if not n.endswith(("2", "EXP"))])
@given(LENGTHS, ITERATIONS, st.integers(1, 1000))
@settings(max_examples=30)
def test_period(name, half, t, cycles):
    policy = parse(f"{name}(k0=0.1, k1=0.7, l={half})")
    period = half if "RSW" in name else 2 * half
    assert policy(t) == policy(t + cycles * period)


@pytest.mark.parametrize("name", ["TRI", "SIN", "UPCOS", "DTRI", "DSIN", "COS"])
@given(LENGTHS, st.integers(0, 10**6))
@settings(max_examples=30)
def test_a_cycle_is_its_own_mirror_image(name, half, t):
    policy = parse(f"{name}(k0=0.1, k1=0.7, l={half})")
    assert policy(t % (2 * half)) == policy(2 * half - t % (2 * half))


@pytest.mark.parametrize(
    ("rising", "falling"), [("TRI", "DTRI"), ("SIN", "DSIN"), ("UPCOS", "COS")]
)
@pytest.mark.parametrize("ending", ["", "2"])
@given(LENGTHS, ITERATIONS)
@settings(max_examples=30)
def test_a_wave_from_the_top_is_the_rising_one_shifted_by_l(rising, falling, ending, half, t):
    up = parse(f"{rising}{ending}(k0=0.1, k1=0.7, l={half})")
    down = parse(f"{falling}{ending}(k0=0.1, k1=0.7, l={half})")
    assert down(t) == up(t + half)


@given(
    policies(["STEP", "NSTEP", "EXP", "INV", "POLY"]), st.lists(ITERATIONS, min_size=2, max_size=20)
)
def test_decaying_functions_start_at_k0_and_never_rise(policy, iterations):
    policy = policy.bind(10**6)
    assert policy(0) == policy.params["k0"]
    assert np.all(np.diff(policy(sorted(iterations))) <= 0)


@given(policies(), st.floats(1e-9, 10))
def test_format_with_fewer_digits(policy, k0):
    short = format(FunctionPolicy("FIX", k0=k0), ".3g")
    assert parse(short)(0) == pytest.approx(k0, rel=5e-3)
    assert format(policy, "") == str(policy)
