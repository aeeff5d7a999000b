"""Reading policies: what is accepted, how it prints, and the one line that each mistake gives."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lrbench_caffe.lr import FunctionPolicy, PolicyError, Trigger, complete_text, parse

# every row of the paper's Tables III to IX; l = 2000 for TRI2 where the table does not name it
PAPER_POLICIES = """
FIX(k0=0.1)
FIX(k0=0.01)
FIX(k0=0.001)
STEP(k0=0.1, gamma=0.85, l=1000)
STEP(k0=0.1, gamma=0.85, l=5000)
STEP(k0=0.1, gamma=0.85, l=10000)
TRI2(k0=0.00005, k1=0.006, l=2000)
TRI2(k0=0.0001, k1=0.01, l=2000)
TRI2(k0=0.0005, k1=0.006, l=2000)
TRI2(k0=0.00001, k1=0.006, l=2000)
TRI2(k0=0.00006, k1=0.006, l=2000)
TRI2(k0=0.00008, k1=0.006, l=2000)
TRI2(k0=0.00025, k1=0.006, l=2000)
TRI2(k0=0.0002, k1=0.006, l=2000)
TRI2(k0=0.00002, k1=0.006, l=2000)
TRI2(k0=0.0001, k1=0.006, l=2000)
STEP(k0=0.001, gamma=0.85, l=1000)
STEP(k0=0.001, gamma=0.85, l=2000)
STEP(k0=0.001, gamma=0.85, l=3000)
STEP(k0=0.001, gamma=0.85, l=4000)
STEP(k0=0.001, gamma=0.85, l=5000)
STEP(k0=0.001, gamma=0.85, l=6000)
STEP(k0=0.001, gamma=0.85, l=7000)
STEP(k0=0.001, gamma=0.85, l=8000)
STEP(k0=0.001, gamma=0.85, l=9000)
STEP(k0=0.001, gamma=0.85, l=10000)
TRI2(k0=0.0001, k1=0.9, l=2000)
TRI2(k0=0.001, k1=0.9, l=2000)
TRI2(k0=0.001, k1=0.6, l=2000)
TRI2(k0=0.0001, k1=0.6, l=2000)
TRI2(k0=0.001, k1=0.3, l=2000)
TRI2(k0=0.0001, k1=0.3, l=2000)
NSTEP(k0=0.001, gamma=0.1, l=[60000, 65000])
NSTEP(k0=0.001, gamma=0.1, l=[30000, 50000, 60000, 65000])
NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])
NSTEP(k0=0.01, gamma=0.9, l=[5000, 7000, 8000, 9000, 9500])
INV(k0=0.01, gamma=0.0001, p=0.75)
POLY(k0=0.01, p=1.2)
TRI(k0=0.01, k1=0.06, l=2000)
TRI2(k0=0.01, k1=0.06, l=2000)
TRIEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)
SIN(k0=0.01, k1=0.06, l=2000)
SIN2(k0=0.01, k1=0.06, l=2000)
SINEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)
COS(k0=0.01, k1=0.06, l=2000)
TRI(k0=0.001, k1=0.006, l=2000)
TRI2(k0=0.001, k1=0.006, l=2000)
TRIEXP(k0=0.001, k1=0.006, gamma=0.99994, l=2000)
TRI(k0=0.00005, k1=0.006, l=2000)
TRIEXP(k0=0.00005, k1=0.006, gamma=0.99994, l=2000)
SIN(k0=0.00005, k1=0.006, l=2000)
SIN2(k0=0.00005, k1=0.006, l=2000)
SINEXP(k0=0.00005, k1=0.006, gamma=0.99994, l=2000)
COS(k0=0.00005, k1=0.006, l=2000)
NSTEP(k0=0.1, gamma=0.1, l=[32000, 48000])
TRIEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)
SINEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)
""".strip().splitlines()


@pytest.mark.parametrize("text", PAPER_POLICIES)
def test_every_policy_of_the_papers_tables(text):
    policy = parse(text)
    assert parse(str(policy)) == policy
    rates = policy.bind(70000)(np.arange(0, 70000, 250))
    high = max(policy.params["k0"], policy.params.get("k1", 0))
    assert np.all((rates > 0) & (rates <= high * (1 + 1e-15)))
    assert rates[0] == (policy.params["k1"] if policy.function == "COS" else policy.params["k0"])


@pytest.mark.parametrize(
    "text",
    [
        "sin2(K0=.01,K1=6e-2,L=2000)",
        "  Sin2 ( k0 = 0.010 , k1=0.06\n, l=2e3 ) ",
        "SIN2(l=2000, k1=+0.06, k0=1e-2)",
        "0: SIN2(k0=0.01, k1=0.06, l=2000.)",
    ],
)
def test_spellings_of_one_policy(text):
    assert str(parse(text)) == "SIN2(k0=0.01, k1=0.06, l=2000)"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("0.01", "FIX(k0=0.01)"),
        (" 1e-3 ", "FIX(k0=0.001)"),
        ("0.1; 20000: 0.01", "FIX(k0=0.1) ; 20000: FIX(k0=0.01)"),
        ("0.1; plateau(n=3): 0.01", "FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)"),
    ],
)
def test_a_number_is_a_fixed_lr(text, policy):
    assert str(parse(text)) == policy
    assert str(complete_text(text, {}, base_lr=1.0, max_iter=30000).policy) == policy


def test_defaults_are_not_printed():
    assert str(parse("STEP(k0=1, gamma=1, l=10, k1=0)")) == "STEP(k0=1, gamma=1, l=10)"
    assert parse("STEP(k0=1, gamma=1, l=10, k1=0)") == parse("STEP(k0=1, gamma=1, l=10)")


def test_digits():
    policy = parse("SIN2(k0=0.3333333333333333, k1=0.5, l=2000)")
    assert format(policy, ".7g") == "SIN2(k0=0.3333333, k1=0.5, l=2000)"
    assert f"{policy:.2g}" == "SIN2(k0=0.33, k1=0.5, l=2000)"
    mixed = parse("FIX(k0=0.123456789) ; plateau(n=3, min_delta=0.123456789): FIX(k0=0.01)")
    assert f"{mixed:.3g}" == "FIX(k0=0.123) ; plateau(n=3, min_delta=0.123): FIX(k0=0.01)"


ERRORS = [
    ("SINE2(k0=1)", "unknown LR function 'SINE2'; did you mean SIN2? known: FIX, STEP, NSTEP,"),
    ("zzz(k0=1)", "unknown LR function 'zzz'; known: FIX,"),
    (
        "SIN2(k0=1, k1=2, ll=2)",
        "SIN2 has no parameter 'll'; did you mean l? its parameters: k0, k1, l",
    ),
    (
        "STEP(k0=1, gama=0.1, l=5)",
        "STEP has no parameter 'gama'; did you mean gamma? its parameters",
    ),
    ("FIX(strict=0)", "FIX has no parameter 'strict'; its parameters: k0"),
    ("SIN2(k0=1, l=5)", "SIN2: k1 is missing; its parameters: k0, k1, l"),
    ("FIX", "FIX: k0 is missing; its parameters: k0"),
    ("FIX(k0=1, K0=2)", "FIX: k0 is given twice"),
    ("FIX(k0=0)", "FIX: k0=0 must be a finite number above 0"),
    ("FIX(k0=-0.1)", "FIX: k0=-0.1 must be a finite number above 0"),
    ("FIX(k0=nan)", "FIX: k0=nan must be a finite number above 0"),
    ("FIX(k0=-inf)", "FIX: k0=-inf must be a finite number above 0"),
    ("FIX(k0=1e999)", "FIX: k0=inf must be a finite number above 0"),
    ("FIX(k0=high)", "FIX: k0=high must be a finite number above 0"),
    ("FIX(k0=[1, 2])", "FIX: k0=[1, 2] must be a finite number above 0"),
    ("SIN(k0=0.1, k1=-1, l=5)", "SIN: k1=-1 must be a finite number, 0 or more"),
    ("SIN2(k0=1, k1=2, l=0)", "SIN2: l=0 must be a whole number of iterations above 0"),
    ("SIN2(k0=1, k1=2, l=-5)", "SIN2: l=-5 must be a whole number of iterations above 0"),
    ("SIN2(k0=1, k1=2, l=2.5)", "SIN2: l=2.5 must be a whole number of iterations above 0"),
    ("SIN2(k0=1, k1=2, l=1e300)", "SIN2: l=1e+300 must be a whole number of iterations above 0"),
    (
        "STEP(k0=1, gamma=1.1, l=5)",
        "STEP: gamma=1.1 must be above 0 and at most 1 (the envelope decays)",
    ),
    ("NSTEP(k0=1, gamma=0, l=[5])", "NSTEP: gamma=0 must be above 0 and at most 1"),
    ("EXP(k0=1, gamma=1.00001)", "EXP: gamma=1.00001 must be above 0 and at most 1"),
    ("SINEXP(k0=1, k1=2, gamma=2, l=5)", "SINEXP: gamma=2 must be above 0 and at most 1"),
    ("INV(k0=1, gamma=-1, p=1)", "INV: gamma=-1 must be a finite number, 0 or more"),
    ("INV(k0=1, gamma=1, p=0)", "INV: p=0 must be a finite number above 0"),
    ("SIG(k0=1, gamma=0, l=5)", "SIG: gamma=0 must be a finite number other than 0"),
    (
        "NSTEP(k0=1, gamma=0.1, l=[7, 5])",
        "NSTEP: l=[7, 5] must be a list of iterations above 0 in strictly",
    ),
    (
        "NSTEP(k0=1, gamma=0.1, l=[5, 5])",
        "NSTEP: l=[5, 5] must be a list of iterations above 0 in strictly",
    ),
    (
        "NSTEP(k0=1, gamma=0.1, l=[])",
        "NSTEP: l=[] must be a list of iterations above 0 in strictly",
    ),
    (
        "NSTEP(k0=1, gamma=0.1, l=[0, 5])",
        "NSTEP: l=[0, 5] must be a list of iterations above 0 in strictly",
    ),
    (
        "NSTEP(k0=1, gamma=0.1, l=5000)",
        "NSTEP: l=5000 must be a list of iterations above 0 in strictly",
    ),
    (
        "NSTEP(k0=1, gamma=0.1, l=[5.5])",
        "NSTEP: l=[5.5] must be a list of iterations above 0 in strictly",
    ),
    ("TRI(k0=0.06, k1=0.01, l=5)", "TRI: k0=0.06, k1=0.01: it starts at k0 and rises: k0 < k1"),
    ("UPCOS2(k0=1, k1=1, l=5)", "UPCOS2: k0=1, k1=1: it starts at k0 and rises: k0 < k1"),
    ("COS(k0=0.1, k1=0.1, l=5)", "COS: k0=0.1, k1=0.1: k0 = k1 is a fixed LR: use FIX"),
    (
        "STEP(k0=0.1, k1=0.2, gamma=0.1, l=5)",
        "STEP: k0=0.1, k1=0.2: k1 is the lower bound: k1 < k0",
    ),
    ("PLATEAU(k0=1, gamma=0.1, n=0)", "PLATEAU: n=0 must be a whole number of tests above 0"),
    ("PLATEAU(k0=1, gamma=0.1, n=3, metric=ac)", "PLATEAU: metric=ac must be top1 or test_loss"),
    (
        "PLATEAU(k0=1, gamma=0.1, n=3, decided=[9, 8])",
        "PLATEAU: decided=[9, 8] must be a list of iterations",
    ),
    # what cannot be read at all
    ("", "LR policy '': expected the name of an LR function at character 1, found the end"),
    ("  ", "expected the name of an LR function at character 1, found the end"),
    ("(k0=1)", "LR policy '(k0=1)': expected the name of an LR function at character 1, found '('"),
    ("FIX(k0=1", "LR policy 'FIX(k0=1': expected ',' or ')' at character 9, found the end"),
    ("FIX(k0=1,, k1=2)", "expected the name of a parameter at character 10, found ','"),
    ("FIX(k0=1,)", "expected the name of a parameter at character 10, found ')'"),
    ("FIX(k0 1)", "LR policy 'FIX(k0 1)': expected '=' at character 8, found '1'"),
    ("FIX(k0=)", "LR policy 'FIX(k0=)': expected a number at character 8, found ')'"),
    ("FIX(k0=1.2.3)", "expected a number at character 8, found '1'"),
    ("FIX(0.1)", "expected the name of a parameter at character 5, found '0.1'"),
    ("NSTEP(l=[1 2])", "expected ',' or ']' at character 12, found '2'"),
    ("NSTEP(l=[a])", "expected a number at character 10, found 'a'"),
    ("FIX(k0=1) FIX(k0=2)", "expected ';' or the end at character 11, found 'FIX'"),
    ("FIX(k0=1) ;", "expected the name of an LR function at character 12, found the end"),
    ("1.5: FIX(k0=1)", "expected a whole iteration at character 1, found '1.5'"),
    ("FIX(k0=1) ; -5: FIX(k0=2)", "expected a whole iteration at character 13, found '-5'"),
    ("FIX(k0=1) ; 5 FIX(k0=2)", "expected ':' at character 15, found 'FIX'"),
    # Python's own limit for a whole number is 4,300 digits
    (
        f"FIX(k0={'9' * 5000})",
        f"LR policy: the number at character 8, {'9' * 20}..., has 5000 characters; allowed: at most 1000",
    ),
    ("9" * 5000, "LR policy: the number at character 1, "),
    (f"FIX(k0=1) ; {'9' * 5000}: FIX(k0=2)", "LR policy: the number at character 13, "),
    (f"NSTEP(k0=1, gamma=0.1, l=[5, {'9' * 5000}])", "LR policy: the number at character 30, "),
    (f"FIX(k0=0.{'1' * 5000})", "LR policy: the number at character 8, "),
    (f"FIX(k0={'9' * 900})", "must be a finite number above 0"),
    # compositions
    ("FIX(k0=1) ; FIX(k0=2)", "segment 2, FIX, needs a start, such as 20000: or plateau(n=3):"),
    ("500: FIX(k0=1)", "the first segment must start at 0, not at 500"),
    ("plateau(n=3): FIX(k0=1)", "the first segment must start at 0, not at plateau(n=3)"),
    (
        "FIX(k0=1) ; 300: FIX(k0=2) ; 200: FIX(k0=3)",
        "segments must start in ascending order: 200 is not after 300",
    ),
    ("FIX(k0=1) ; 0: FIX(k0=2)", "segments must start in ascending order: 0 is not after 0"),
    (
        "FIX(k0=1) ; plateau(n=3): FIX(k0=2) ; 200: FIX(k0=3)",
        "a segment that starts at 200 cannot follow one that starts at plateau(n=3)",
    ),
    (
        "PLATEAU(k0=1, gamma=0.1, n=3) ; 200: FIX(k0=3)",
        "PLATEAU(k0=1, gamma=0.1, n=3) never ends, so that it can only be the last segment",
    ),
    (
        "FIX(k0=1) ; plateau(m=3): FIX(k0=2)",
        "plateau has no parameter 'm'; its parameters: n, metric",
    ),
    (
        "FIX(k0=1) ; plateau(): FIX(k0=2)",
        "plateau: n is missing; its parameters: n, metric, min_delta",
    ),
    (
        "FIX(k0=1) ; plateau(n=3, metric=loss): FIX(k0=2)",
        "plateau: metric=loss must be top1 or test_loss",
    ),
    (
        "FIX(k0=1) ; plateau(n=3, min_delta=-1): FIX(k0=2)",
        "plateau: min_delta=-1 must be a finite number, 0",
    ),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_a_mistake_gives_one_clear_line(text, message):
    with pytest.raises(PolicyError, match=re.escape(message)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_not_a_text():
    with pytest.raises(PolicyError, match=r"an LR policy is a text such as SIN2.*, not 0\.1"):
        parse(0.1)


def test_numbers_of_other_types():
    policy = FunctionPolicy("nstep", k0=np.float32(0.5), gamma=1, l=np.array([5, 7]))
    assert policy == parse("NSTEP(k0=0.5, gamma=1, l=[5, 7])")
    for wrong in (True, "0.1", None, 1j):
        with pytest.raises(PolicyError, match=r"FIX: k0=.* must be a finite number above 0"):
            FunctionPolicy("FIX", k0=wrong)
    with pytest.raises(
        PolicyError, match=r"plateau: n=1\.5 must be a whole number of tests above 0"
    ):
        Trigger(n=1.5)


def test_relaxed_rules_are_wider_but_still_rules():
    assert parse("EXP(k0=0, gamma=1.5)", strict=False)(3) == 0
    assert parse("STEP(k0=1, gamma=2, l=10)", strict=False)(30) == 8
    with pytest.raises(PolicyError, match="EXP: gamma=-1 must be a finite number, 0 or more"):
        parse("EXP(k0=1, gamma=-1)", strict=False)
    with pytest.raises(PolicyError, match="EXP: gamma=nan must be"):
        parse("EXP(k0=1, gamma=nan)", strict=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # t/2l = 1.25: TRI is 1/2 at a quarter of the second cycle, halved once
        ("TRI2(k0=0.00005, k1=0.006, l=2000)", 0.00005 + (0.006 - 0.00005) * 0.5 / 2),
        ("NSTEP(k0=0.01, gamma=0.9, l=[5000, 7000, 8000, 9000, 9500])", 0.009),
        ("INV(k0=0.01, gamma=0.0001, p=0.75)", 0.01 * 1.5**-0.75),
        ("POLY(k0=0.01, p=1.2)", 0.01 * 0.5**1.2),
        ("TRIEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)", 0.01 + 0.05 * 0.5 * 0.99994**5000),
        ("COS(k0=0.01, k1=0.06, l=2000)", 0.01 + 0.05 * 0.5),
    ],
)
def test_the_papers_policies_half_way_through_10000_iterations(text, expected):
    assert parse(text).bind(10000)(5000) == pytest.approx(expected, rel=1e-12)
