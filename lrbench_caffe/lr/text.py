"""Reads LR policies as the paper writes them.

policy   = segment (";" segment)*
segment  = [start ":"] call
start    = iteration | "plateau" arguments
call     = name [arguments] | number         a number alone is a fixed LR: 0.01 is FIX(k0=0.01)
arguments = "(" [name "=" value ("," name "=" value)*] ")"
value    = number | word | "[" [number ("," number)*] "]"
"""

from __future__ import annotations

import re
from typing import NamedTuple, Union

from .composition import Composition
from .errors import PolicyError
from .parameters import accept_all
from .plateau import TRIGGER_PARAMETERS, Trigger
from .policy import FunctionPolicy, Policy

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number> [+-]? (?:\d+\.?\d*|\.\d+) (?:[eE][+-]?\d+)? (?![\w.]) )
      | (?P<word> [+-]?[A-Za-z_]\w* )  # the sign is for -inf, so that it is refused as one word
      | (?P<sign> . )
    )""",
    re.DOTALL | re.ASCII | re.VERBOSE,
)
_TRIGGER = "plateau"
_LONGEST = 1000  # characters of a number: Python reads no whole number of more than 4,300 digits
_SHOWN = 200  # characters of a text that a message shows

Argument = Union[int, float, str, tuple[Union[int, float], ...]]


class Call(NamedTuple):
    """A name with its arguments as written, not checked yet; no arguments for a bare name."""

    name: str
    arguments: dict[str, Argument]


class RawSegment(NamedTuple):
    """A call and what was written before its colon."""

    start: int | Call | None
    call: Call


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse(text: str, *, strict: bool = True) -> Policy:
    """The policy that a text describes, e.g. "FIX(k0=0.1) ; 20000: SIN2(k0=0.01, k1=0.06, l=2000)".

    Names are accepted in any case and white space anywhere between them. str(policy) is the
    inverse.

    Arguments:
        text: the policy; every parameter that has no default is given.
        strict: False allows what Caffe's own policies allow, for texts of policies that from_caffe
            made.

    Raises:
        PolicyError: the text cannot be read (the message shows where), or the policy is not valid.

    >>> policy = parse("sin2(k0=.01, k1=6e-2, l=2000)")
    >>> str(policy), policy(2000)
    ('SIN2(k0=0.01, k1=0.06, l=2000)', 0.06)
    >>> parse("0.01")
    parse('FIX(k0=0.01)')
    >>> parse("SINE2(k0=0.01)")
    Traceback (most recent call last):
        ...
    lrbench_caffe.lr.errors.PolicyError: unknown LR function 'SINE2'; did you mean SIN2? known: FIX, ...
    """
    return build(read(text), strict=strict)


def read(text: str) -> list[RawSegment]:
    """The segments of a text as written: names and values, not yet checked."""
    return _PolicyReader(text).segments()


def read_value(text: str, what: str = "value") -> Argument:
    """A value as typed on a command line: a number, a word, or a list with or without brackets.

    >>> read_value("1e-3"), read_value("[5000, 7000]"), read_value("5000,7000")
    (0.001, (5000, 7000), (5000, 7000))
    """
    return _PolicyReader(
        f"[{text}]" if "," in text and "[" not in text else text, what
    ).only_value()


def build(segments: list[RawSegment], *, strict: bool = True) -> Policy:
    """The policy of segments that were read."""
    policies = [FunctionPolicy(call.name, call.arguments, strict=strict) for _, call in segments]
    if len(segments) == 1 and segments[0].start in (None, 0):
        return policies[0]
    return Composition(
        [(_start(raw, i), policy) for i, (raw, policy) in enumerate(zip(segments, policies))]
    )


def _start(raw: RawSegment, index: int) -> int | Trigger:
    if isinstance(raw.start, Call):
        return Trigger(**accept_all(_TRIGGER, TRIGGER_PARAMETERS, raw.start.arguments))  # type: ignore[arg-type]
    if raw.start is None:
        if index > 0:
            raise PolicyError(
                f"segment {index + 1}, {raw.call.name}, needs a start, such as 20000: or plateau(n=3):"
            )
        return 0
    return raw.start


class _PolicyReader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, what: str = "LR policy") -> None:
        if not isinstance(text, str):
            raise PolicyError(
                f"an LR policy is a text such as SIN2(k0=0.01, k1=0.06, l=2000), not {text!r}"
            )
        self.text = text
        self.what = what
        self.tokens = [
            _Token(m.lastgroup or "", m.group(m.lastgroup or 0), m.start(m.lastgroup or 0))
            for m in _TOKEN.finditer(text.rstrip())
        ] + [_Token("end", "the end", len(text.rstrip()))]
        self.at = 0
        for token in self.tokens:
            if token.kind == "number" and len(token.text) > _LONGEST:
                raise PolicyError(
                    f"{what}: the number at character {token.position + 1}, {token.text[:20]}..., has "
                    f"{len(token.text)} characters; allowed: at most {_LONGEST}"
                )

    def segments(self) -> list[RawSegment]:
        segments = [self.segment()]
        while self.take(";"):
            segments.append(self.segment())
        if self.next.kind != "end":
            self.fail("';' or the end")
        return segments

    def only_value(self) -> Argument:
        value = self.value()
        if self.next.kind != "end":
            self.fail("the end")
        return value

    def segment(self) -> RawSegment:
        start: int | Call | None = None
        if self.next.kind == "number" and not self.ends_segment(self.at + 1):
            start = self.iteration()
            self.expect(":")
        call = self.call()
        if start is None and call.name.lower() == _TRIGGER and self.take(":"):
            return RawSegment(call, self.call())
        return RawSegment(start, call)

    def iteration(self) -> int:
        if not self.next.text.isdigit():
            self.fail("a whole iteration")
        return int(self.advance().text)

    def ends_segment(self, at: int) -> bool:
        token = self.tokens[at]
        return token.kind == "end" or (token.kind == "sign" and token.text == ";")

    def call(self) -> Call:
        if self.next.kind == "number" and self.ends_segment(self.at + 1):
            return Call("FIX", {"k0": self.number()})
        name = self.word("the name of an LR function")
        arguments: dict[str, Argument] = {}
        if self.take("("):
            while not self.take(")"):
                if arguments:
                    self.expect(",", "',' or ')'")
                key = self.word("the name of a parameter").lower()
                if key in arguments:
                    raise PolicyError(f"{name.upper()}: {key} is given twice")
                self.expect("=")
                arguments[key] = self.value()
        return Call(name, arguments)

    def value(self) -> Argument:
        if self.take("["):
            return self.numbers()
        if self.next.kind == "word":
            return self.advance().text
        return self.number()

    def numbers(self) -> tuple[int | float, ...]:
        numbers: list[int | float] = []
        while not self.take("]"):
            if numbers:
                self.expect(",", "',' or ']'")
            numbers.append(self.number())
        return tuple(numbers)

    def number(self) -> int | float:
        if self.next.kind != "number":
            self.fail("a number")
        text = self.advance().text
        return int(text) if text.lstrip("+-").isdigit() else float(text)

    def word(self, wanted: str) -> str:
        if self.next.kind != "word" or self.next.text[0] in "+-":
            self.fail(wanted)
        return self.advance().text

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def advance(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, sign: str) -> _Token | None:
        return self.advance() if self.next.kind == "sign" and self.next.text == sign else None

    def expect(self, sign: str, wanted: str = "") -> None:
        if not self.take(sign):
            self.fail(wanted or repr(sign))

    def fail(self, wanted: str) -> None:
        token = self.next.text if self.next.kind == "end" else repr(self.next.text[:_SHOWN])
        place = f"at character {self.next.position + 1}"
        number = re.match(r"\s*[-+.]?\d[^(:;]*$", self.text)  # such as 0,01 or 0.01f
        hint = "; a plain number such as 0.01 is allowed" if number else ""
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "..."
        raise PolicyError(f"{self.what} {shown!r}: expected {wanted} {place}, found {token}{hint}")
