"""Checks column by column what a SQLite file returns: it stores any value in any column.

PostgreSQL holds types and constraints by itself. A damaged SQLite file, or one that another program
wrote to, can have a text for a number; without these checks it would come up wherever that number
is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from lrbench_caffe.database.ranges import LAYERS

LARGEST = sys.float_info.max  # a number is finite
_REAL = (float, int)

Check = Callable[[Any], bool]


class DamagedValue(ValueError):
    """A value that is not what its column holds."""


class CheckedType(TypeDecorator[Any]):
    """A column's type on SQLite, whose values are checked when they are read."""

    impl = Text  # each has its own
    cache_ok = True

    def __init__(self, stored: TypeEngine[Any], column: str, check: Check, optional: bool) -> None:
        super().__init__()
        self.stored = stored
        self.column, self.check, self.optional = column, check, optional

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(self.stored)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        # One function for a value, of which an export has millions.
        read = self.impl_instance.result_processor(dialect, coltype)
        check, optional, column = self.check, self.optional, self.column

        def checked(value: Any) -> Any:
            if read is not None:
                value = read(value)
            if value is None:
                if not optional:
                    raise DamagedValue(f"{column} has no value")
            elif not check(value):
                raise DamagedValue(f"{column} is {value!r:.60}")
            return value

        return checked


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
            # The numbers of rows are SQLite's own, and what refers to a missing row is found by
            # joins.
            if not column.primary_key and not column.foreign_keys:
                name = f"{table.name}.{column.name}"
                check = _check_of(column, ranges.get(name), words.get(name), objects.get(name))
                checked = CheckedType(column.type, name, check, bool(column.nullable))
                column.type = column.type.with_variant(checked, "sqlite")


def _check_of(
    column: Column[Any],
    bounds: tuple[float, float] | None,
    words: tuple[str, ...] | None,
    values: Check | None,
) -> Check:
    low, high = bounds or (-LARGEST, LARGEST)
    if isinstance(column.type, JSON):
        return lambda value: (
            type(value) is dict and (values is None or all(map(values, value.values())))
        )
    if isinstance(column.type, (Integer, BigInteger)):
        return lambda value: type(value) is int and low <= value <= high
    if isinstance(column.type, Double):
        return lambda value: type(value) in _REAL and low <= value <= high
    return is_text if words is None else words.__contains__


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_real(value: Any) -> bool:
    return type(value) in _REAL and -LARGEST <= value <= LARGEST


def is_count(value: Any) -> bool:
    """A number of layers, in ``network.layers``."""
    return type(value) is int and 0 <= value <= LAYERS


def is_spread(value: Any) -> bool:
    """Mean, deviation and number of trainings, in ``summary.outputs``."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    mean, sd, n = value
    return is_real(mean) and (sd is None or is_real(sd)) and (n is None or type(n) is int)
