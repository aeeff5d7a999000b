"""Docstrings as Markdown for the docs site (an extension of Griffe, see mkdocs.yml)."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> (?:.+\n?)+", re.M)  # up to the next blank line
NO_HEADING = re.compile(r"^#(?=\w)", re.M)  # "#Param is ..."
DIRECTIVE = re.compile(r" *# doctest: .*")


class Docstrings(griffe.Extension):
    """Fences examples, which Markdown would take for quotes, and keeps #Param from becoming a heading."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one module, class or function."""
        if obj.docstring:
            text = NO_HEADING.sub(r"\#", DIRECTIVE.sub("", obj.docstring.value))
            obj.docstring.value = EXAMPLE.sub(
                lambda m: f"```pycon\n{m.group(0).rstrip()}\n```\n", text
            )
