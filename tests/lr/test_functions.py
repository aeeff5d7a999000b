"""The functions against values by hand and the literal formulas of the paper and its authors' code."""

# ruff: noqa: E741 - l is the paper's name

from __future__ import annotations

import math

import numpy as np
import pytest

from lrbench_caffe.lr import FUNCTIONS, PAPER_FUNCTIONS, PolicyError, describe_functions, parse

PI = math.pi

# g(t) as printed in Table I (COS after the erratum) and as in the authors' code, with math
# functions only. RSW is left out at multiples of l, where the authors' value differs on purpose.
ORACLE = {
    "FIX": lambda t: 1,
    "STEP": lambda t, gamma, l: gamma ** math.floor(t / l),
    "NSTEP": lambda t, gamma, l: gamma ** sum(1 for boundary in l if boundary <= t),
    "EXP": lambda t, gamma: gamma**t,
    "INV": lambda t, gamma, p: 1 / (1 + t * gamma) ** p,
    "POLY": lambda t, p, l: (1 - t / l) ** p if t < l else 0,
    "TRI": lambda t, l: 2 / PI * abs(math.asin(math.sin(PI * t / (2 * l)))),
    "SIN": lambda t, l: abs(math.sin(PI * t / (2 * l))),
    "COS": lambda t, l: 0.5 * (1 + math.cos(PI * t / l)),
    "SIG": lambda t, gamma, l: 1 / (1 + math.exp(-gamma * (t - l))),
    "DTRI": lambda t, l: 2 / PI * abs(math.asin(math.sin(PI * (t + l) / (2 * l)))),
    "DSIN": lambda t, l: abs(math.sin(PI * (t + l) / (2 * l))),
    "UPCOS": lambda t, l: 0.5 * (1 + math.cos(PI * (t / l + 1))),
    "RSW": lambda t, l: -t / l - math.floor(-t / l),
    "SINRSW": lambda t, l: math.sin(PI / 2 * (-t / l - math.floor(-t / l))),
    "COSRSW": lambda t, l: 0.5 * (1 - math.cos(PI * (-t / l - math.floor(-t / l)))),
}
CYCLE = {
    "TRI": lambda t, l: math.floor(t / (2 * l)),
    "SIN": lambda t, l: math.floor(t / (2 * l)),
    "UPCOS": lambda t, l: math.floor(t / (2 * l)),
    "DTRI": lambda t, l: math.floor((t + l) / (2 * l)),
    "DSIN": lambda t, l: math.floor((t + l) / (2 * l)),
    "COS": lambda t, l: math.floor((t + l) / (2 * l)),
    "RSW": lambda t, l: math.floor(t / l),
    "SINRSW": lambda t, l: math.floor(t / l),
    "COSRSW": lambda t, l: math.floor(t / l),
}
for _name, _cycle in CYCLE.items():
    ORACLE[_name + "2"] = lambda t, l, w=ORACLE[_name], c=_cycle: w(t, l) / 2 ** c(t, l)
    ORACLE[_name + "EXP"] = lambda t, gamma, l, w=ORACLE[_name]: gamma**t * w(t, l)

ARGUMENTS = {
    "STEP": {"gamma": 0.85, "l": 70},
    "NSTEP": {"gamma": 0.32, "l": (30, 250, 251, 900)},
    "EXP": {"gamma": 0.997},
    "INV": {"gamma": 0.001, "p": 0.75},
    "POLY": {"p": 1.2, "l": 900},
    "SIG": {"gamma": -0.01, "l": 300},
}


def written(name, k0, k1, arguments):
    given = {"k0": k0, **({"k1": k1} if k1 is not None else {}), **arguments}
    texts = {key: str(list(v)) if isinstance(v, tuple) else repr(v) for key, v in given.items()}
    return f"{name}({', '.join(f'{key}={value}' for key, value in texts.items())})"


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"PLATEAU"}))
def test_equals_the_literal_formula(name):
    cyclic = FUNCTIONS[name].kind == "cyclic"
    arguments = ARGUMENTS.get(name, {} if name == "FIX" else {"l": 73})
    if name.endswith("EXP") and name != "EXP":
        arguments = {"gamma": 0.997, "l": 73}
    k0, k1 = (0.001, 0.06) if cyclic else (0.05, None)
    policy = parse(written(name, k0, k1, arguments))
    low, high = (k0, k1) if cyclic else (0, k0)
    iterations = [t for t in range(1100) if "RSW" not in name or t % 73]
    expected = [(high - low) * ORACLE[name](t, **arguments) + low for t in iterations]
    np.testing.assert_allclose(policy(np.array(iterations)), expected, rtol=1e-11, atol=1e-16)


def test_the_oracle_covers_the_whole_table():
    assert set(ORACLE) == set(FUNCTIONS) - {"PLATEAU"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FIX(k0=0.1)", {0: 0.1, 10**7: 0.1}),
        ("STEP(k0=8, gamma=0.5, l=100)", {0: 8, 99: 8, 100: 4, 199: 4, 200: 2, 300: 1}),
        ("STEP(k0=8, gamma=0.5, l=100, k1=2)", {0: 8, 100: 5, 200: 3.5}),  # 6*g + 2
        ("NSTEP(k0=1, gamma=0.1, l=[5, 7])", {4: 1, 5: 0.1, 6: 0.1, 7: 0.01, 1000: 0.01}),
        ("EXP(k0=4, gamma=0.5)", {0: 4, 1: 2, 2: 1, 3: 0.5}),
        ("INV(k0=3, gamma=0.5, p=2)", {0: 3, 2: 0.75, 4: 1 / 3}),
        ("POLY(k0=1, p=2, l=10)", {0: 1, 5: 0.25, 9: 0.01, 10: 0, 11: 0, 10**7: 0}),
        ("POLY(k0=1, p=1, l=10, k1=0.5)", {0: 1, 5: 0.75, 10: 0.5, 20: 0.5}),
        (
            "TRI(k0=0.01, k1=0.06, l=2000)",
            {0: 0.01, 1000: 0.035, 2000: 0.06, 3000: 0.035, 4000: 0.01},
        ),
        ("TRI2(k0=1, k1=9, l=10)", {0: 1, 10: 9, 20: 1, 30: 5, 40: 1, 50: 3}),
        ("TRIEXP(k0=1, k1=9, gamma=0.5, l=2)", {0: 1, 1: 3, 2: 3, 3: 1.5, 4: 1}),
        ("SIN(k0=1, k1=3, l=30)", {0: 1, 10: 2, 30: 3, 50: 2, 60: 1}),  # sin 30 degrees = 1/2
        ("SIN2(k0=1, k1=3, l=30)", {10: 2, 30: 3, 60: 1, 70: 1.5, 90: 2, 150: 1.5}),
        ("SINEXP(k0=1, k1=9, gamma=0.5, l=3)", {0: 1, 1: 3, 3: 2, 6: 1}),
        (
            "COS(k0=0.01, k1=0.06, l=2000)",
            {0: 0.06, 1000: 0.035, 2000: 0.01, 4000: 0.06, 10000: 0.01},
        ),
        ("COS(k0=0.06, k1=0.01, l=2000)", {0: 0.06, 1000: 0.035, 2000: 0.01, 4000: 0.06}),
        (
            "COS2(k0=1, k1=3, l=10)",
            {0: 3, 9: 1.04894348, 10: 1, 20: 2, 30: 1, 40: 1.5},
        ),  # 9: 2 + cos 162
        ("SIG(k0=2, gamma=0.1, l=50)", {50: 1, 10**5: 2}),
        ("DTRI2(k0=1, k1=9, l=10)", {0: 9, 5: 5, 10: 1, 15: 3, 20: 5, 30: 1, 40: 3}),
        ("UPCOS(k0=1, k1=3, l=10)", {0: 1, 5: 2, 10: 3, 20: 1}),
        ("RSW(k0=1, k1=5, l=4)", {0: 5, 1: 4, 2: 3, 3: 2, 4: 5, 5: 4}),
        ("RSW2(k0=1, k1=5, l=4)", {0: 5, 3: 2, 4: 3, 6: 2, 8: 2}),
        ("SINRSW(k0=1, k1=3, l=3)", {0: 3, 2: 2, 3: 3}),
        ("COSRSW(k0=1, k1=3, l=2)", {0: 3, 1: 2, 2: 3}),
        (
            "PLATEAU(k0=1, gamma=0.1, n=3, decided=[50, 70])",
            {0: 1, 49: 1, 50: 0.1, 69: 0.1, 70: 0.01},
        ),
    ],
)
def test_values_by_hand(text, expected):
    assert {t: parse(text)(t) for t in expected} == pytest.approx(expected, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("name", ["TRI", "SIN", "UPCOS", "DTRI", "DSIN", "COS"])
@pytest.mark.parametrize("half", [1, 3, 2000, 77777])
def test_turning_points_are_exact(name, half):
    policy = parse(f"{name}(k0=0.01, k1=0.06, l={half})")
    start, middle = (0.01, 0.06) if name in ("TRI", "SIN", "UPCOS") else (0.06, 0.01)
    cycles = np.array([0, 1, 2, 1000, 10**6, 10**9])
    assert set(policy(cycles * 2 * half)) == {start}
    assert set(policy(cycles * 2 * half + half)) == {middle}


def test_the_top_is_exactly_the_larger_bound():
    assert 0.3 + (0.9 - 0.3) != 0.9  # what formula 2 gives in floating point
    assert parse("TRI(k0=0.3, k1=0.9, l=10)")(10) == 0.9


@pytest.mark.parametrize("name", ["RSW", "SINRSW", "COSRSW"])
def test_a_restart_begins_exactly_at_the_top(name):
    policy = parse(f"{name}(k0=0.01, k1=0.06, l=7)")
    assert set(policy(np.array([0, 7, 7 * 10**8]))) == {0.06}
    assert policy(6) < policy(5) < policy(1) < 0.06


def test_late_iterations_are_as_accurate_as_early_ones():
    t = np.arange(1000)
    for name in ("TRI", "SIN", "COS", "RSW", "DSIN", "COSRSW"):
        policy = parse(f"{name}(k0=0.1, k1=0.7, l=500)")
        np.testing.assert_array_equal(policy(t + 10**7), policy(t))  # 10^7 is a multiple of 2l


def test_step_divides_whole_numbers():
    # 0.1 * 3 and the like never enter: the quotient of whole numbers is exact at every boundary
    steps = np.arange(1, 10**5)
    policy = parse("STEP(k0=1, gamma=0.9999, l=49)")
    np.testing.assert_array_equal(policy(steps * 49), np.power(0.9999, steps.astype(float)))
    np.testing.assert_array_equal(policy(steps * 49 - 1), np.power(0.9999, steps - 1.0))


def test_halving_ends_at_the_lower_bound_without_overflow():
    policy = parse("TRI2(k0=0.25, k1=0.75, l=1)")
    assert policy(2 * 4000 + 1) == 0.25
    assert policy(10**12 + 1) == 0.25


def test_extreme_values_give_no_warning_and_no_nan():
    t = np.array([0, 1, 10**7])
    with np.errstate(all="raise"):
        assert parse("SIG(k0=1, gamma=-5, l=1)")(t).tolist() == pytest.approx(
            [1 / (1 + math.exp(-5)), 0.5, 0]
        )
        assert parse("EXP(k0=1, gamma=0.5)")(t).tolist() == [1, 0.5, 0]
        assert parse("POLY(k0=1, p=0.5, l=1)")(t).tolist() == [1, 0, 0]


def test_paper_functions_are_those_of_table_1():
    table = "FIX STEP NSTEP EXP INV POLY TRI TRI2 TRIEXP SIN SIN2 SINEXP COS"
    assert " ".join(PAPER_FUNCTIONS) == table
    assert " ".join(row.name for row in describe_functions()[:13]) == table


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("FIX(k0=0.1)", 1),
        ("STEP(k0=0.1, gamma=0.85, l=5000)", 3),
        ("NSTEP(k0=0.01, gamma=0.9, l=[5000, 7000, 8000, 9000, 9500])", 7),  # n + 2
        ("NSTEP(k0=0.1, gamma=0.1, l=[32000, 48000])", 4),
        ("EXP(k0=0.1, gamma=0.9)", 2),
        ("INV(k0=0.01, gamma=0.0001, p=0.75)", 3),
        ("POLY(k0=0.01, p=1.2, l=5000)", 4),
        ("POLY(k0=0.01, p=1.2)", 3),  # l = max_iter
        ("POLY(k0=0.01, k1=0.001, p=1.2)", 3),
        ("TRI(k0=0.01, k1=0.06, l=2000)", 3),
        ("TRI2(k0=0.01, k1=0.06, l=2000)", 3),
        ("TRIEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)", 4),
        ("SIN(k0=0.01, k1=0.06, l=2000)", 3),
        ("SIN2(k0=0.01, k1=0.06, l=2000)", 3),
        ("SINEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)", 4),
        ("COS(k0=0.01, k1=0.06, l=2000)", 3),
        (
            "STEP(k0=0.1, k1=0.001, gamma=0.85, l=5000)",
            4,
        ),  # a lower bound that was chosen is one more
        ("PLATEAU(k0=0.1, gamma=0.1, n=3)", 3),
        ("PLATEAU(k0=0.1, gamma=0.1, n=3, metric=test_loss, min_delta=0.1, decided=[5, 6])", 4),
    ],
)
def test_num_params(text, count):
    assert parse(text).num_params == count


def test_poly_without_l_ends_at_max_iter():
    policy = parse("POLY(k0=1, p=2)")
    assert policy.needs_max_iter
    with pytest.raises(PolicyError, match=r"POLY\(k0=1, p=2\): l is missing and means max_iter"):
        policy(0)
    bound = policy.bind(100)
    assert [bound(0), bound(50), bound(100)] == [1, 0.25, 0]
    assert (str(bound), bound.num_params, bound.max_iter) == ("POLY(k0=1, p=2)", 3, 100)
    assert not bound.needs_max_iter
    assert bound != policy and bound == parse(str(bound)).bind(100)
    assert bound.bind(200)(50) == 0.5625  # bound again, to the new value
    with pytest.raises(
        PolicyError, match="max_iter=0 must be a whole number of iterations, 1 or more"
    ):
        policy.bind(0)


def test_bind_leaves_other_policies_alone():
    for text in ("FIX(k0=0.1)", "POLY(k0=1, p=2, l=10)", "SIN(k0=1, k1=2, l=5)"):
        assert parse(text).bind(100) == parse(text)


def test_kind_and_params():
    policy = parse("sin2(k0=0.01, k1=0.06, l=2000)")
    assert (policy.function, policy.functions, policy.kind) == ("SIN2", ("SIN2",), "cyclic")
    assert dict(policy.params) == {"k0": 0.01, "k1": 0.06, "l": 2000}
    kinds = {row.name: FUNCTIONS[row.name].kind for row in describe_functions()}
    assert kinds["FIX"] == "fixed" and kinds["SIG"] == "sigmoid" and kinds["PLATEAU"] == "plateau"
    assert {kinds[name] for name in ("STEP", "NSTEP", "EXP", "INV", "POLY")} == {"decaying"}


def test_a_policy_cannot_be_changed():
    policy = parse("FIX(k0=0.1)")
    with pytest.raises(AttributeError):
        policy.max_iter = 5
    with pytest.raises(TypeError):
        policy.params["k0"] = 5


@pytest.mark.parametrize("t", [-1, [0, -1], float("nan"), float("inf"), [0, 1e400], None, "later"])
def test_an_iteration_that_is_none_is_refused(t):
    with pytest.raises(PolicyError, match="an iteration must be a number, 0 or more"):
        parse("FIX(k0=0.1)")(t)


def test_shapes_and_types():
    policy = parse("SIN(k0=0.1, k1=0.2, l=10)")
    assert type(policy(3)) is float and type(policy(np.int64(3))) is float
    values = policy(np.arange(6, dtype=np.int32).reshape(2, 3))
    assert (values.shape, values.dtype) == ((2, 3), np.float64)
    assert policy(np.array([], dtype=int)).shape == (0,)
    assert policy([0, 10]).tolist() == [0.1, 0.2]


def test_describe_functions_has_a_row_for_each_with_every_cell():
    rows = describe_functions()
    assert [row.name for row in rows] == list(FUNCTIONS)
    assert all(all(cell.strip() for cell in row) for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["NSTEP"].parameters == "k0, k1=0, gamma, l=[l0, ...]"
    assert by_name["NSTEP"].num_params == "n+2 (+1 with k1)"
    assert by_name["POLY"].num_params == "3 (+1 with l)"
    assert by_name["COS"].equation == "(1 + cos(pi*t/l)) / 2"
    assert by_name["DSIN2"].equation == "DSIN(t) / 2^floor((t+l)/(2l))"
