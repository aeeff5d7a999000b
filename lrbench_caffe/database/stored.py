"""What a SQLite file gives back is checked column by column: it stores any value in any column.

PostgreSQL holds types and constraints by itself. A damaged SQLite file, or one that another program wrote to,
can have a text for a number; without these checks it would come up wherever that number is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from lrbench_caffe.database.ranges import LAYERS

Check = Callable[[Any], bool]


class DamagedValue(ValueError):
    """A value that is not what its column holds."""


class Checked(TypeDecorator):
    """A column's type on SQLite, whose values are checked when they are read."""

    impl = Text  # each has its own
    cache_ok = True

    def __init__(self, stored: TypeEngine[Any], column: str, check: Check, optional: bool) -> None:
        super().__init__()
        self.stored = stored
        self.column, self.check, self.optional = column, check, optional

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(self.stored)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            if not self.optional:
                raise DamagedValue(f"{self.column} has no value")
        elif not self.check(value):
            raise DamagedValue(f"{self.column} is {value!r:.60}")
        return value


def check_columns(
    metadata: MetaData,
    ranges: Mapping[str, tuple[float, float]],
    words: Mapping[str, tuple[str, ...]],
    objects: Mapping[str, Check],
) -> None:
    """Give the columns of all tables their checks.

    Args:
        ranges: lowest and highest value of numbers; words: the values of text that has a few only;
        objects: what a JSON object's values are. All by "table.column".
    """
    for table in metadata.tables.values():
        for column in table.columns:
            # The numbers of rows are SQLite's own, and what refers to a missing row is found by joins.
            if not column.primary_key and not column.foreign_keys:
                name = f"{table.name}.{column.name}"
                check = _check_of(column, ranges.get(name), words.get(name), objects.get(name))
                checked = Checked(column.type, name, check, bool(column.nullable))
                column.type = column.type.with_variant(checked, "sqlite")


def _check_of(
    column: Column[Any],
    bounds: tuple[float, float] | None,
    words: tuple[str, ...] | None,
    values: Check | None,
) -> Check:
    low, high = bounds or (-math.inf, math.inf)
    if isinstance(column.type, JSON):
        return partial(is_object, values=values)
    if isinstance(column.type, (Integer, BigInteger)):
        return partial(is_whole, low=low, high=high)
    if isinstance(column.type, Double):
        return partial(is_real, low=low, high=high)
    return is_text if words is None else words.__contains__


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_whole(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return type(value) is int and low <= value <= high


def is_real(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return type(value) in (float, int) and low <= value <= high and abs(value) < math.inf


def is_object(value: Any, values: Check | None) -> bool:
    return isinstance(value, dict) and (values is None or all(map(values, value.values())))


def is_count(value: Any) -> bool:
    """A number of layers, in ``network.layers``."""
    return is_whole(value, 0, LAYERS)


def is_spread(value: Any) -> bool:
    """Mean, deviation and number of trainings, in ``summary.outputs``."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    mean, sd, n = value
    return is_real(mean) and (sd is None or is_real(sd)) and (n is None or is_whole(n))
