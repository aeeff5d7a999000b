"""Write messages in prototxt from Python values. Needs Python alone."""

from __future__ import annotations

from typing import Any, Union

Setting = Union[str, int, float, bool, list[Any], dict[str, Any]]


class Literal(str):
    """A value that is written without quotes: a number as it shall look, or an enum's name."""


def block(name: str, settings: dict[str, Setting], indent: int = 0) -> str:
    """A message in prototxt: ``name { ... }``. A list repeats its field, a dict is a message."""
    pad = "  " * indent
    lines = [f"{pad}{name} {{"]
    for key, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                lines.append(block(key, item, indent + 1))
            else:
                lines.append(f"{pad}  {key}: {text(item)}")
    return "\n".join([*lines, f"{pad}}}"])


def text(value: Setting) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) and not isinstance(value, Literal) else str(value)


def layer(name: str, kind: str, bottom: list[str], top: str, **settings: Setting) -> str:
    head: dict[str, Setting] = {"name": name, "type": kind, "bottom": list(bottom), "top": top}
    return block("layer", {**head, **settings})
