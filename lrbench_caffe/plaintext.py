"""Shows text from outside as plain text: names, paths and other programs' output.

Each kind of output has one function: the terminal ``visible`` (streams and consoles call it), a cell or a
line ``one_line``, Markdown ``markdown``, CSV ``csv_cell``; pictures have ``plots.files.save``, which makes
every text in a figure plain.
"""

from __future__ import annotations

import re

# What a terminal obeys, what turns the direction of text or ends its line, what no encoding has
# (lone surrogates: bytes of a file name that are not UTF-8), and what XML forbids.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff]"
)
_LINE = re.compile(r"[\n\t]")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\x1b"}

# Marks of Markdown where they would be obeyed. In the middle of a word "_" is none, nor "[" without
# a target.
_MARKDOWN = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # an escape
    r"|[|`]"
    r"|\*(?=\S)|(?<=\S)\*"
    r"|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)"
    r"|~(?=\S)|(?<=\S)~"
    r"|\](?=[(\[:])"
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def visible(text: str) -> str:
    r"""The text with what a terminal would obey or could not show written as an escape; line ends stay.

    >>> print(visible("Net\x1b[2J"))
    Net\x1b[2J

    Inside JSON only characters above U+007E can be met, whose escapes JSON reads as the same text.
    """
    return _UNSEEN.sub(escape, text)


def one_line(text: str) -> str:
    """The same in one line, for a cell, a name in a message, an entry of a list."""
    return _LINE.sub(escape, visible(text))


def escape(match: re.Match[str]) -> str:
    r"""One character as programs write it: ``\x1b``, ``\u2028``."""
    code = ord(match[0])
    return _NAMED.get(match[0]) or (f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}")


def markdown(text: str) -> str:
    """The text for a line or a table's cell of Markdown, where it means itself."""
    plain = _ENTITY.sub("&amp;", one_line(text).strip())
    return _TAG.sub("&lt;", _MARKDOWN.sub(r"\\\g<0>", plain))


def csv_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like one gets an apostrophe.

    Numbers stay numbers, negative ones too.
    """
    if text.startswith(_FORMULA) and not _is_number(text):
        text = f"'{text}"
    return one_line(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters of a text, with an ellipsis where something is left out."""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
