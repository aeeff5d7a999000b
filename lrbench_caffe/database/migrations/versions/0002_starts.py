"""What a run began with, its layers and its head; outputs of the test nets; the lowest test loss.

A run of the first revision tells of its start only in its origin: "(from PATH)" and "(finetuned
from PATH)" are starts whose content nobody knows any more, and so is that of an imported run whose
first test came after the training was under way. Every other run began from scratch. The summaries
are derived: they are made anew, empty, and ``Database.open`` computes them.
"""

from __future__ import annotations

import re
from typing import Any

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

revision = "0002"
down_revision = "0001"

STARTS = "'scratch', 'weights', 'snapshot', 'unknown'"
SOURCES = "'measured', 'paper', 'imported'"
LAYERS, INT32 = 10**6, 2**31 - 1
SPREADS = ("iterations", "top1", "top5", "ac", "cd", "cdac", "ld", "test_loss")
DESCENDING = ("top1", "top5", "ac")
RANGES = {
    "top1": "0 AND 100",
    "top5": "0 AND 100",
    "ac": "0 AND 1.0001",
    "cd": "0 AND 1e+100",
    "cdac": "0 AND 1e+100",
    "ld": "-1e+100 AND 1e+100",
    "test_loss": "-1e+100 AND 1e+100",
}

# What the first revision wrote behind an origin.
BEGAN = re.compile(r" \((?:finetuned )?from .*\)$", re.DOTALL)
TRAINED_BY = re.compile(r"[(,] ?((?:stock|fast)(?:, then (?:stock|fast))?) layers\)$")

Id = BigInteger().with_variant(Integer(), "sqlite")
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _check(column: str, condition: str, name: str) -> CheckConstraint:
    return CheckConstraint(f"{column} {condition}", name=name)


def _start() -> list[Column[Any]]:
    limits = {"start_filled": LAYERS, "start_layers": LAYERS, "start_iteration": INT32}
    return [
        Column(
            "start_kind",
            Text,
            _check("start_kind", f"IN ({STARTS})", "start_kind"),
            nullable=False,
            server_default="scratch",
        ),
        Column("start_key", Text, nullable=False, server_default="scratch"),
        Column("start_digest", String(32)),
        *(
            Column(name, BigInteger, _check(name, f"BETWEEN 0 AND {high}", f"{name}_range"))
            for name, high in limits.items()
        ),
        Column("start_name", Text),
    ]


for _name in ("task", "solver"):
    Table(_name, metadata, Column("id", Id, primary_key=True))
Table("policy", metadata, Column("id", Id, primary_key=True), Column("function", Text))

summary = Table(
    "summary",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("task_id", Id, ForeignKey("task.id"), nullable=False),
    Column("policy_id", Id, nullable=False),
    Column("function", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("max_iter", BigInteger, nullable=False),
    Column("solver_id", Id, ForeignKey("solver.id"), nullable=False, index=True),
    Column("epoch", Double),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("runs", "repeats", "failed", "diverged")
    ),
    *(Column(name, Double) for base in SPREADS for name in (base, f"{base}_sd")),
    *(Column(f"{name}_n", BigInteger) for name in SPREADS),
    Column("origin", Text, nullable=False),
    *_start(),
    Column("outputs", JSON),
    UniqueConstraint(
        "task_id",
        "policy_id",
        "source",
        "max_iter",
        "solver_id",
        "start_key",
        name="uq_summary_group",
    ),
    ForeignKeyConstraint(["policy_id", "function"], ["policy.id", "policy.function"]),
    Index(None, "policy_id", "function"),
    _check("source", f"IN ({SOURCES})", "source"),
    *(_check(name, f"BETWEEN {range_}", f"{name}_range") for name, range_ in RANGES.items()),
    *(
        _check(name, ">= 0", f"{name}_not_negative")
        for name in ("runs", "repeats", "failed", "diverged")
    ),
)


def _ranking_index(name: str, *columns: str) -> None:
    *prefix, ranked = (summary.c[column] for column in columns)
    order = ranked.desc() if ranked.name in DESCENDING else ranked.asc()
    for dialect, key in (("postgresql", order.nulls_last()), ("sqlite", order)):
        Index(name, *prefix, key, summary.c.id).ddl_if(dialect=dialect)


for _name in SPREADS:
    _ranking_index(f"ix_summary_best_{_name}", "task_id", _name)
_ranking_index("ix_summary_function", "task_id", "function", "top1")


def upgrade() -> None:
    _add_columns()
    _fill_columns()
    op.execute("DROP INDEX ix_run_group")
    op.create_index(
        "ix_run_group",
        "run",
        ["task_id", "policy_id", "source", "max_iter", "solver_id", "start_key"],
    )
    op.create_index("ix_run_task_id_best_loss", "run", ["task_id", "best_loss"])
    op.execute("DROP TABLE summary")
    summary.create(op.get_bind())


def downgrade() -> None:
    raise NotImplementedError(
        "the first revision cannot say what a run began with; restore a backup"
    )


def _add_columns() -> None:
    """One by one, so that SQLite does not make the table anew: to drop it would delete all measurements."""
    double = "DOUBLE PRECISION" if op.get_bind().dialect.name == "postgresql" else "DOUBLE"

    def limited(name: str, high: int) -> str:
        return f"{name} BIGINT CONSTRAINT ck_run_{name}_range CHECK ({name} BETWEEN 0 AND {high})"

    for column in (
        "start_kind TEXT DEFAULT 'scratch' NOT NULL "
        f"CONSTRAINT ck_run_start_kind CHECK (start_kind IN ({STARTS}))",
        "start_key TEXT DEFAULT 'scratch' NOT NULL",
        "start_digest VARCHAR(32)",
        limited("start_filled", LAYERS),
        limited("start_layers", LAYERS),
        limited("start_iteration", INT32),
        "start_name TEXT",
        "layers TEXT",
        "head TEXT",
        f"best_loss {double}",
    ):
        op.execute(f"ALTER TABLE run ADD COLUMN {column}")
    op.execute("ALTER TABLE measurement ADD COLUMN outputs JSON")


def _fill_columns() -> None:
    connection = op.get_bind()
    connection.execute(text("UPDATE run SET layers = 'stock' WHERE source = 'measured'"))
    # Caffe takes the seed modulo 2^32.
    connection.execute(text("UPDATE run SET seed = seed % 4294967296 WHERE seed >= 4294967296"))
    unknown = "UPDATE run SET start_kind = 'unknown', start_key = 'run ' || uid WHERE "
    found = connection.execute(text("SELECT id, origin FROM run WHERE origin LIKE '%)'")).all()
    for run_id, origin in found:
        if BEGAN.search(origin):
            connection.execute(text(unknown + "id = :id"), {"id": run_id})
        layers = TRAINED_BY.search(origin)
        if layers:
            change = text("UPDATE run SET layers = :layers WHERE id = :id")
            connection.execute(change, {"layers": layers[1], "id": run_id})
    first = "(SELECT min(iteration) FROM measurement WHERE run_id = run.id)"
    connection.execute(text(f"{unknown} source = 'imported' AND {first} > test_interval"))
    loss = "(SELECT min(test_loss) FROM measurement WHERE run_id = run.id AND net = 0)"
    connection.execute(text(f"UPDATE run SET best_loss = {loss} WHERE status <> 'running'"))
