"""The first tables: a copy of schema.py as it was then, because that file goes on changing."""

from __future__ import annotations

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
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

SOURCES = ("measured", "paper", "imported")
STATUSES = ("running", "finished", "failed", "diverged", "stopped")

METRICS = ("top1", "top5", "ac", "cd", "cdac", "ld")
SPREADS = ("iterations", *METRICS)
DESCENDING = ("top1", "top5", "ac")  # higher is better; of the others lower is

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers its rows itself only in a column of type INTEGER; they are 64 bits wide there anyhow.
Id = BigInteger().with_variant(Integer(), "sqlite")
Digest = String(32)
# Sorted by code points whatever the server's locale, so that exports of equal databases are equal.
Uid = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData(naming_convention=NAMING)


def _id() -> Column:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _key() -> Column:
    return Column("key", Digest, nullable=False, unique=True)


def _reference(table: str, index: bool = True) -> Column:
    return Column(f"{table}_id", Id, ForeignKey(f"{table}.id"), nullable=False, index=index)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, values))})", name=column)


def _positive(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} > 0", name=f"{column}_positive")


def _not_negative(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} >= 0", name=f"{column}_not_negative")


def _metric_checks() -> list[CheckConstraint]:
    # A softmax in single precision can exceed 1 by rounding, and so can a mean of such values.
    return [
        CheckConstraint("top1 BETWEEN 0 AND 100", name="top1_percent"),
        CheckConstraint("top5 BETWEEN 0 AND 100", name="top5_percent"),
        CheckConstraint("ac BETWEEN 0 AND 1.0001", name="ac_probability"),
        _not_negative("cd"),
        _not_negative("cdac"),
    ]


framework = Table(
    "framework",
    metadata,
    _id(),
    _key(),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("device", Text, nullable=False),
)

task_type = Table(
    "task_type",
    metadata,
    _id(),
    _key(),
    Column("name", Text, nullable=False),
    Column("classes", BigInteger),
    _positive("classes"),
)

dataset = Table(
    "dataset",
    metadata,
    _id(),
    _key(),
    Column("name", Text, nullable=False),
    *(
        Column(name, BigInteger)
        for name in ("channels", "height", "width", "classes", "train_samples", "test_samples")
    ),
    Column("digest", Text),
    *map(_positive, ("channels", "height", "width", "classes")),
    *map(_not_negative, ("train_samples", "test_samples")),
)

network = Table(
    "network",
    metadata,
    _id(),
    _key(),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("layers", JSON, nullable=False),
    Column("parameters", BigInteger),
    Column("depth", BigInteger, nullable=False),
    *map(_not_negative, ("parameters", "depth")),
)

task = Table(
    "task",
    metadata,
    _id(),
    _key(),
    _reference("task_type"),
    _reference("framework"),
    _reference("dataset"),
    _reference("network"),
)

policy = Table(
    "policy",
    metadata,
    _id(),
    _key(),
    Column("text", Text, nullable=False),
    Column("function", Text, nullable=False, index=True),
    Column("params", JSON, nullable=False),
    Column("num_params", Integer, nullable=False),
    UniqueConstraint("id", "function"),
    _not_negative("num_params"),
)

solver = Table(
    "solver",
    metadata,
    _id(),
    _key(),
    Column("type", Text, nullable=False),
    Column("batch", BigInteger),
    Column("iter_size", BigInteger, nullable=False),
    Column("base_lr", Double),
    Column("momentum", Double),
    Column("weight_decay", Double),
    *map(_positive, ("batch", "iter_size")),
)

run = Table(
    "run",
    metadata,
    _id(),
    Column("uid", Uid, nullable=False, unique=True),
    _reference("task", index=False),
    _reference("framework"),
    _reference("dataset"),
    _reference("network"),
    _reference("policy"),
    _reference("solver"),
    Column("source", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("seed", BigInteger),
    Column("max_iter", BigInteger, nullable=False),
    Column("test_interval", BigInteger),
    Column("epoch", Double),
    Column("machine", Text),
    Column("started", Double),
    Column("ended", Double),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("repeats", Integer, nullable=False),
    Column("top1_sd", Double),
    # Derived from the measurements when the run ends: what it can have reached at all.
    Column("best_top1", Double),
    _one_of("source", SOURCES),
    _one_of("status", STATUSES),
    CheckConstraint("uid <> ''", name="uid_not_empty"),
    *map(_positive, ("epoch", "repeats")),
    *map(_not_negative, ("max_iter", "test_interval", "top1_sd")),
    CheckConstraint("best_top1 BETWEEN 0 AND 100", name="best_top1_percent"),
    Index("ix_run_group", "task_id", "policy_id", "source", "max_iter", "solver_id"),
    Index(None, "task_id", "best_top1"),
)

measurement = Table(
    "measurement",
    metadata,
    Column("run_id", Id, ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
    Column("net", Integer, nullable=False),
    Column("iteration", BigInteger, nullable=False),
    Column("lr", Double, nullable=False),
    *(Column(name, Double) for name in ("top1", "top5", "ac", "cd", "cdac")),
    *(Column(name, Double) for name in ("test_loss", "train_loss", "ld")),
    Column("seconds", Double, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("silent_classes", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "net", "iteration"),
    *_metric_checks(),
    *map(_not_negative, ("net", "iteration", "samples", "silent_classes")),
)

summary = Table(
    "summary",
    metadata,
    _id(),
    _reference("task", index=False),
    Column("policy_id", Id, nullable=False),
    Column("function", Text, nullable=False),  # the policy's, to be found by
    Column("source", Text, nullable=False),
    Column("max_iter", BigInteger, nullable=False),
    _reference("solver"),
    Column("epoch", Double),
    *(Column(name, Integer, nullable=False) for name in ("runs", "repeats", "failed", "diverged")),
    *(Column(name, Double) for base in SPREADS for name in (base, f"{base}_sd")),
    Column("origin", Text, nullable=False),
    UniqueConstraint("task_id", "policy_id", "source", "max_iter", "solver_id", name="uq_summary_group"),
    ForeignKeyConstraint(["policy_id", "function"], ["policy.id", "policy.function"]),
    Index(None, "policy_id", "function"),
    _one_of("source", SOURCES),
    *_metric_checks(),
    *map(_not_negative, ("runs", "repeats", "failed", "diverged")),
)


def _ranking_index(name: str, *columns: str) -> None:
    """Best first, what was not measured last, then the older: the order that ``summaries`` asks for.

    SQLite has no NULLS LAST in an index; with DESC it puts them last by itself.
    """
    *prefix, ranked = (summary.c[column] for column in columns)
    order = ranked.desc() if ranked.name in DESCENDING else ranked.asc()
    for dialect, key in (("postgresql", order.nulls_last()), ("sqlite", order)):
        Index(name, *prefix, key, summary.c.id).ddl_if(dialect=dialect)


for _name in SPREADS:
    _ranking_index(f"ix_summary_best_{_name}", "task_id", _name)
_ranking_index("ix_summary_function", "task_id", "function", "top1")

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)


def downgrade() -> None:
    metadata.drop_all(op.get_bind(), checkfirst=False)
