"""The table of LR functions. Parsing, checks, evaluation, completion, help and docs all read it.

    eta(t) = |k0 - k1| * g(t) + min(k0, k1),   g(t) = wave(t) * envelope(t)

(formula 2 of the paper). The first 13 functions are those of the paper's Table I; the others are in
the authors' later code (github.com/git-disl/LRBench, lr/LRfunctions.py). Where this table differs
from either, and why:

- COS is printed in Table I with cos(pi*2t/l), whose period is l. The paper's text (l is half the
  cycle), the authors' code and the iterations of Tables VII and VIII need cos(pi*t/l), period 2l,
  which is used here.
- RSW, SINRSW and COSRSW: the authors' fractional part of -t/l is 0 at every restart (t = 0, l, 2l,
  ...), so that their LR is at the bottom for that single iteration and jumps to the top one
  iteration later. A restart begins at the top here, g(0) = g(l) = 1; every other iteration agrees.
- The authors compute (k1 - k0)*g + k0, which turns a wave upside down where k0 > k1; formula 2 does
  not. With k0 < k1 both are the same. The waves that start at the top take k0 and k1 in either
  order (the paper's text has k0 > k1 for COS, its tables k0 < k1); the waves that start at the
  bottom, which is k0, require k0 < k1.
- POLY: in the authors' code k0 is the lower and k1 the upper bound. Here k0 is the start, as in
  Table I, and k1 the lower bound, 0 if not given, as for every decaying function.
- NSTEP: the authors count boundaries in a variable that lives as long as the program, so that the
  LR depends on which iterations were asked before. Here i is counted from t.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from . import parameters as par
from . import shapes
from .errors import PolicyError, nearest
from .parameters import REQUIRED, Parameter, Rule


class Envelope(NamedTuple):
    """The factor of a wave: its value, and the equation to print."""

    evaluate: Callable[[shapes.Array, shapes.Values], shapes.Array]
    equation: str


class LRFunction(NamedTuple):
    """One row of the table.

    `order` is the rule for (k0, k1), None where there is no k1. `wave` is None for functions that
    are an envelope alone. `equation` is the whole of g(t).
    """

    name: str
    kind: str
    parameters: tuple[Parameter, ...]
    order: Rule | None
    wave: shapes.Wave | None
    envelope: Envelope
    equation: str
    meaning: str

    def g(self, t: shapes.Array, values: shapes.Values) -> shapes.Array:
        """g(t) of the paper's Table I for an array of iterations."""
        envelope = self.envelope.evaluate(t, values)
        return envelope if self.wave is None else self.wave(t, values["l"]) * envelope

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def num_params_text(self) -> str:
        """#Param as the table shows it: "3", "n+2", "3 (+1 with l)"."""
        fixed = sum(parameter.count == "always" for parameter in self.parameters)
        lists = "n+" if any(parameter.count == "each" for parameter in self.parameters) else ""
        given = [parameter.name for parameter in self.parameters if parameter.count == "given"]
        return f"{lists}{fixed}" + (f" (+1 with {' or '.join(given)})" if given else "")


_FLOOR = Rule("k1 is the lower bound: k1 < k0", lambda k: k[1] < k[0])
_RISING = Rule("it starts at k0 and rises: k0 < k1", lambda k: k[0] < k[1])
_EITHER = Rule("k0 = k1 is a fixed LR: use FIX", lambda k: k[0] != k[1])


def _decaying(
    name: str,
    given: tuple[Parameter, ...],
    envelope: Envelope,
    meaning: str,
    kind: str = "decaying",
) -> LRFunction:
    order = _FLOOR if "k1" in [parameter.name for parameter in given] else None
    return LRFunction(name, kind, given, order, None, envelope, envelope.equation, meaning)


_FLAT = Envelope(shapes.constant, "1")
_EXP = Envelope(shapes.power_of_gamma, "gamma^t")

_TABLE: list[LRFunction] = [
    _decaying("FIX", (par.K0,), _FLAT, "the same LR at every iteration", kind="fixed"),
    _decaying(
        "STEP",
        (par.K0, par.K1_FLOOR, par.GAMMA_SHARE, par.L),
        Envelope(shapes.stairs, "gamma^floor(t/l)"),
        "times gamma every l iterations",
    ),
    _decaying(
        "NSTEP",
        (par.K0, par.K1_FLOOR, par.GAMMA_SHARE, par.L_LIST),
        Envelope(shapes.boundaries("l"), "gamma^i, i = number of iterations in l that are <= t"),
        "times gamma at each of the n iterations listed in l",
    ),
    _decaying(
        "EXP", (par.K0, par.K1_FLOOR, par.GAMMA_SHARE), _EXP, "times gamma at every iteration"
    ),
    _decaying(
        "INV",
        (par.K0, par.K1_FLOOR, par.GAMMA_INV, par.P),
        Envelope(shapes.inverse_time, "(1 + gamma*t)^(-p)"),
        "inverse time, Caffe's usual choice for LeNet",
    ),
    _decaying(
        "POLY",
        (par.K0, par.K1_FLOOR_COUNTED, par.P, par.L_MAX_ITER),
        Envelope(shapes.polynomial, "(1 - t/l)^p, 0 from t = l on; l = max_iter if not given"),
        "polynomial that ends at iteration l",
    ),
]


class _Cycle(NamedTuple):
    """The course of a wave: its ramp, the order of k0 and k1, its counter, words for help."""

    ramp: shapes.Ramp
    order: Rule
    cycle: str
    words: str


_RISE = _Cycle(
    shapes.RISE, _RISING, "floor(t/(2l))", "from the bottom (k0) up to k1 in l iterations and back"
)
_FALL = _Cycle(
    shapes.FALL, _EITHER, "floor((t+l)/(2l))", "from the top down in l iterations and back"
)
_RESTART = _Cycle(
    shapes.RESTART, _EITHER, "floor(t/l)", "from the top down in l iterations, then a restart"
)


def _cyclic(
    name: str, word: str, shape: Callable[[shapes.Array], shapes.Array], path: _Cycle, equation: str
) -> list[LRFunction]:
    """A wave with its three envelopes: NAME, NAME2 (halved every cycle) and NAMEEXP (times gamma^t)."""
    wave = shapes.Wave(path.ramp, shape)
    halved = Envelope(shapes.halved_per_cycle(path.ramp), f"2^-{path.cycle}")

    def row(
        ending: str, gamma: tuple[Parameter, ...], envelope: Envelope, equation: str, more: str
    ) -> LRFunction:
        given = (par.K0, par.K1, *gamma, par.L)
        meaning = f"{word} {path.words}{more}"
        return LRFunction(
            name + ending, "cyclic", given, path.order, wave, envelope, equation, meaning
        )

    return [
        row("", (), _FLAT, equation, ""),
        row("2", (), halved, f"{name}(t) / 2^{path.cycle}", "; halved after every cycle"),
        row(
            "EXP",
            (par.GAMMA_SHARE,),
            _EXP,
            f"gamma^t * {name}(t)",
            "; times gamma at every iteration",
        ),
    ]


_TABLE += [
    *_cyclic("TRI", "triangle", shapes.straight, _RISE, "(2/pi)*abs(arcsin(sin(pi*t/(2l))))"),
    *_cyclic("SIN", "sine", shapes.sine, _RISE, "abs(sin(pi*t/(2l)))"),
    *_cyclic("COS", "cosine", shapes.cosine, _FALL, "(1 + cos(pi*t/l)) / 2"),
    _decaying(
        "SIG",
        (par.K0, par.K1_FLOOR, par.GAMMA_SIG, par.L_SIG),
        Envelope(shapes.sigmoid, "1 / (1 + exp(-gamma*(t - l)))"),
        "sigmoid around iteration l; rises for gamma > 0, falls for gamma < 0",
        kind="sigmoid",
    ),
    *_cyclic("DTRI", "triangle", shapes.straight, _FALL, "TRI(t+l)"),
    *_cyclic("DSIN", "sine", shapes.sine, _FALL, "SIN(t+l)"),
    *_cyclic("UPCOS", "cosine", shapes.cosine, _RISE, "(1 - cos(pi*t/l)) / 2"),
    *_cyclic("RSW", "sawtooth", shapes.straight, _RESTART, "1 - t/l + floor(t/l)"),
    *_cyclic("SINRSW", "sine", shapes.sine, _RESTART, "sin(pi/2*RSW(t))"),
    *_cyclic("COSRSW", "cosine", shapes.cosine, _RESTART, "(1 - cos(pi*RSW(t))) / 2"),
    _decaying(
        "PLATEAU",
        (par.K0, par.K1_FLOOR, par.GAMMA_SHARE, par.N, par.METRIC, par.MIN_DELTA, par.DECIDED),
        Envelope(
            shapes.boundaries("decided"), "gamma^i, i = number of decisions made by iteration t"
        ),
        "times gamma each time the metric has not improved for n tests",
        kind="plateau",
    ),
]

FUNCTIONS: dict[str, LRFunction] = {function.name: function for function in _TABLE}
PAPER_FUNCTIONS = tuple(FUNCTIONS)[:13]  # Table I


def find_function(name: Any) -> LRFunction:
    """The row of a function, its name in any case.

    Raises:
        PolicyError: no such function.

    >>> find_function("sin2").equation
    'SIN(t) / 2^floor(t/(2l))'
    """
    function = FUNCTIONS.get(str(name).upper())
    if function is None:
        near = nearest(str(name).upper(), FUNCTIONS)
        raise PolicyError(f"unknown LR function {str(name)!r};{near} known: {', '.join(FUNCTIONS)}")
    return function


class FunctionRow(NamedTuple):
    """A function as help texts and docs show it."""

    name: str
    equation: str
    parameters: str
    num_params: str
    meaning: str


def describe_functions() -> list[FunctionRow]:
    """Every LR function for a help text or a table, the paper's 13 first.

    Returns:
        Rows of (name, equation of g(t), parameters, #Param, meaning), all text.

    >>> tri = describe_functions()[6]
    >>> tri.name, tri.equation, tri.parameters, tri.num_params
    ('TRI', '(2/pi)*abs(arcsin(sin(pi*t/(2l))))', 'k0, k1, l', '3')
    """
    return [
        FunctionRow(
            f.name, f.equation, _describe_parameters(f.parameters), f.num_params_text, f.meaning
        )
        for f in FUNCTIONS.values()
    ]


def _describe_parameters(parameters: tuple[Parameter, ...]) -> str:
    # decisions are written by the program, not by people
    return ", ".join(
        _describe_parameter(parameter) for parameter in parameters if parameter is not par.DECIDED
    )


def _describe_parameter(parameter: Parameter) -> str:
    if parameter.count == "each":
        return f"{parameter.name}=[l0, ...]"
    if parameter is par.L_MAX_ITER:
        return f"{parameter.name}=max_iter"
    if parameter.default is REQUIRED:
        return parameter.name
    return f"{parameter.name}={par.print_value(parameter.default)}"
