"""Damage to texts that are read back: logs of Caffe, and exports (JSON Lines).

rng = random.Random(7)
damaged_log(content, rng)        # the same seed, the same damage
damaged_export(content, rng)
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]\w+")
_NUMBERS = (
    b"", b"nan", b"-nan", b"inf", b"1e999", b"-1", b"0", b"9" * 400, b"9" * 5000, b"2147483648", b"1e-400",
    b"0x1F", b"1,5", b"01", "\u0663\u0664".encode(), "\uff11".encode(), b"1_000", b"--1", b"1.2.3",
    b"18446744073709551616",
)  # fmt: skip
_CODES = (
    b"\x1b[2J",
    b"\x00",
    b"\xff\xfe",
    b"\r",
    b"\x9b",
    "\u202e".encode(),
    b"\xed\xa0\x80",
    b"[/x]",
    b"$$",
)

LogDamage = Callable[[bytes, random.Random], bytes]


def damaged_log(content: bytes, rng: random.Random) -> bytes:
    """A log with one to four damages."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(LOG_DAMAGES)(content, rng) or b"\n"
    return content


# -- logs ------------------------------------------------------------------------------------------


def truncated(content: bytes, rng: random.Random) -> bytes:
    cut = rng.randrange(len(content))
    return rng.choice((content[:cut], content[cut:]))


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 5, 50))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def noise(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return (
        content[:place]
        + rng.choice((rng.randbytes(200), *_CODES))
        + content[place + rng.choice((0, 50)) :]
    )


def lines_changed(content: bytes, rng: random.Random) -> bytes:
    """Lines doubled, deleted, moved, cut, joined, or written into each other."""
    lines = content.splitlines(keepends=True)
    for _ in range(rng.choice((1, 3, 30))):
        if len(lines) < 3:
            break
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        change = rng.randrange(6)
        if change == 0:
            lines.insert(at, lines[other])
        elif change == 1:
            del lines[at]
        elif change == 2:
            lines[at], lines[other] = lines[other], lines[at]
        elif change == 3:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)] + b"\n" * rng.randint(0, 1)
        elif change == 4:
            lines[at] = lines[at].rstrip(b"\n")
        else:
            half = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:half] + lines[other] + lines[at][half:]
    return b"".join(lines)


def block_changed(content: bytes, rng: random.Random) -> bytes:
    """Many lines in a row deleted, doubled or moved."""
    lines = content.splitlines(keepends=True)
    one, other, to = sorted(rng.randrange(len(lines) + 1) for _ in range(3))
    block = lines[one:other]
    return b"".join(
        rng.choice(
            (
                [*lines[:one], *lines[other:]],
                [*lines[:to], *block, *lines[to:]],
                [*lines[:one], *lines[other:to], *block, *lines[to:]],
            )
        )
    )


def numbers_changed(content: bytes, rng: random.Random) -> bytes:
    return _replaced(content, rng, _NUMBER, _NUMBERS)


def words_changed(content: bytes, rng: random.Random) -> bytes:
    """A word by another one of the log, or by nothing."""
    words = [match[0] for match in _WORD.finditer(content[:20000])] or [b""]
    return _replaced(content, rng, _WORD, (*(rng.choice(words) for _ in range(10)), b"", *_CODES))


def marks_changed(content: bytes, rng: random.Random) -> bytes:
    return _replaced(
        content, rng, re.compile(rb"[{}:\"\[\]()#=,]"), (b"", b"{", b"}", b'"', b":", b"::", b"#")
    )


def encoded(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "utf-8-sig")))


LOG_DAMAGES: tuple[LogDamage, ...] = (
    truncated, flipped, noise, lines_changed, lines_changed, block_changed, block_changed, numbers_changed,
    numbers_changed, words_changed, marks_changed, encoded,
)  # fmt: skip


def _replaced(
    content: bytes, rng: random.Random, pattern: re.Pattern[bytes], values: tuple[bytes, ...]
) -> bytes:
    found = list(pattern.finditer(content))
    if not found:
        return content
    chosen = rng.sample(found, min(len(found), rng.choice((1, 3, 20))))
    for match in sorted(chosen, key=lambda match: -match.start()):
        content = content[: match.start()] + rng.choice(values) + content[match.end() :]
    return content


# -- exports ---------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 10**400, 2**63, -(2**63) - 1, 0.5, 1e308, math.nan, math.inf, "",
    "text",
    "2", "[/x]", "\x1b[2J", "\ud800", "\0", "x" * 10000, [], {}, [[]], {"a": {}}, "running", "finished",
)  # fmt: skip


def damaged_export(content: bytes, rng: random.Random) -> bytes:
    """An export some lines of which have other fields or values, or are damaged as any text is."""
    lines = content.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        if rng.random() < 0.3:
            lines[at] = rng.choice(LOG_DAMAGES)(lines[at] or b"\n", rng)
        else:
            try:
                lines[at] = _damaged_record(lines[at], rng)
            except (
                ValueError,
                TypeError,
                LookupError,
                AttributeError,
                RecursionError,
            ):  # it is damaged already
                continue
    return b"".join(lines)


def _damaged_record(line: bytes, rng: random.Random) -> bytes:
    record = json.loads(line)
    if rng.random() < 0.8:  # else the digest finds it
        record.pop("digest", None)
    for _ in range(rng.randint(1, 3)):
        holder = record
        while True:
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.3:
                break
            holder = holder[key]
        change = rng.randrange(4)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[rng.choice(("more", "", "\x1b", "schema"))] = rng.choice(_VALUES)
        else:
            holder[key] = rng.choice(_VALUES)
        if not record:
            break
    text = json.dumps(record)
    if rng.random() < 0.1:  # the first field twice, and nested too deeply
        text = rng.choice(
            ("{" + text[1:-1] + "," + text[1:], "[" * 100000, '{"a":' * 100000, f"[{text}]")
        )
    return text.encode() + b"\n"
