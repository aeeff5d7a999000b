"""The tables. Migrations make them (migrations/versions); a test holds the two against each other.

    framework, task_type, dataset, network    what a task consists of, each row once (``key``)
    task                                      what runs are compared within
    policy, solver                            what is compared, and the other settings
    batch                                     one upload of runs to a platform, and from whom it is
    token                                     who may upload
    run                                       one training
    measurement                               one test pass of one test net
    summary                                   the runs of one group as ranking shows them
    meta                                      what this database has been told about itself

A start (``records.Start``) is columns of the run and of the summary, not a table: ``start_key`` is
what makes two starts the same one, and the key of a start that is not known is the run's own, so
that it is pooled with nothing (``rows.start_key``).

``key`` is a digest over all that makes a row what it is, NULL included; a unique constraint over
the columns themselves would let two rows with a NULL pass for different ones.
"""

from __future__ import annotations

from typing import Any

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
    text,
)

from lrbench_caffe.database import stored
from lrbench_caffe.database.ranges import RANGES
from lrbench_caffe.metrics import METRICS, RANKED
from lrbench_caffe.records import SOURCES, STANDINGS, STARTS, STATUSES

REVISION = "0003"  # of the newest migration; a test compares it with the files

# What a summary has the mean and deviation of, in the order of its columns: test_loss came later.
SPREADS = ("iterations", *(name for name in RANKED if name != "test_loss"), "test_loss")
DESCENDING = tuple(name for name in RANKED if METRICS[name].higher)

SCOPES = ("read", "write", "admin")  # of tokens; each may do what those before it may

NOT_SHOWN = "standing <> 'shown'"  # of an index; a query has its words, so that SQLite uses it

_STARTED = ("filled", "layers", "iteration")  # the numbers of a start

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers its rows itself only in a column of type INTEGER; they are 64 bits wide there
# anyhow.
Id = BigInteger().with_variant(Integer(), "sqlite")
Digest = String(32)
# Sorted by code points whatever the server's locale, so that exports of equal databases are equal.
Uid = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData(naming_convention=NAMING)


def _id() -> Column[Any]:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _key() -> Column[Any]:
    return Column("key", Digest, nullable=False, unique=True)


def _reference(table: str, index: bool = True) -> Column[Any]:
    return Column(f"{table}_id", Id, ForeignKey(f"{table}.id"), nullable=False, index=index)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, values))})", name=column)


def _not_negative(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} >= 0", name=f"{column}_not_negative")


def _in_range(table: str, *columns: str, of: str | None = None) -> list[CheckConstraint]:
    """Constraints for columns that have a range, by default all of the table's; ``of`` is whose ranges."""
    source = f"{of or table}."
    names = columns or [name.removeprefix(source) for name in RANGES if name.startswith(source)]
    bounds = ((name, *RANGES[source + name]) for name in names)
    return [
        CheckConstraint(f"{name} BETWEEN {low!r} AND {high!r}", name=f"{name}_range")
        for name, low, high in bounds
    ]


def _start() -> list[Column[Any]]:
    """The columns of a start. SQLite can add constraints only to single columns."""
    ranges = {f"start_{name}": RANGES[f"start.{name}"] for name in _STARTED}
    return [
        Column(
            "start_kind",
            Text,
            _one_of("start_kind", STARTS),
            nullable=False,
            server_default="scratch",
        ),
        Column("start_key", Text, nullable=False, server_default="scratch"),
        Column("start_digest", Digest),
        *(
            Column(
                name,
                BigInteger,
                CheckConstraint(f"{name} BETWEEN {low} AND {high}", name=f"{name}_range"),
            )
            for name, (low, high) in ranges.items()
        ),
        Column("start_name", Text),
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
    *_in_range("task_type"),
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
    *_in_range("dataset"),
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
    *_in_range("network"),
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
    Column("stamp", BigInteger, nullable=False, server_default=text("0")),  # see ``stamps``
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
    *_in_range("policy"),
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
    *_in_range("solver"),
)

batch = Table(
    "batch",
    metadata,
    _id(),
    Column("uid", Uid, nullable=False, unique=True),
    Column("contributor", Text, nullable=False, index=True),
    Column("note", Text),
    Column("link", Text),
    Column("sent", Double, nullable=False),
    *_in_range("batch", "sent", of="contribution"),
)

token = Table(
    "token",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False, unique=True),  # SHA-256: nobody can read the token here
    Column("scope", Text, nullable=False),
    Column("made", Double, nullable=False),
    Column("expires", Double),  # never, where it is NULL
    Column("revoked", Double),
    _one_of("scope", SCOPES),
    *_in_range("token"),
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
    # Derived from the measurements when the run ends: a bound on what it reached.
    Column("best_top1", Double),
    *_start(),
    Column("layers", Text),
    Column("head", Text),
    Column("best_loss", Double),  # the lowest test loss, likewise
    Column(
        "batch_id", Id, ForeignKey("batch.id"), index=True
    ),  # NULL for one that was not uploaded
    # Only a run that is shown counts in summaries; ``doubt`` says why another one does not.
    Column(
        "standing", Text, _one_of("standing", STANDINGS), nullable=False, server_default="shown"
    ),
    Column("doubt", Text),
    _one_of("source", SOURCES),
    _one_of("status", STATUSES),
    CheckConstraint("uid <> ''", name="uid_not_empty"),
    *_in_range("run"),
    CheckConstraint("best_top1 BETWEEN 0 AND 100", name="best_top1_percent"),
    Index("ix_run_group", "task_id", "policy_id", "source", "max_iter", "solver_id", "start_key"),
    Index(None, "task_id", "best_top1"),
    Index(None, "task_id", "best_loss"),
    # Few are not shown; every page of a task counts them.
    Index(
        "ix_run_not_shown",
        "task_id",
        "standing",
        postgresql_where=text(NOT_SHOWN),
        sqlite_where=text(NOT_SHOWN),
    ),
)

measurement = Table(
    "measurement",
    metadata,
    Column("run_id", Id, ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
    Column("net", Integer, nullable=False),
    Column("iteration", BigInteger, nullable=False),
    Column("lr", Double, nullable=False),
    *(Column(name, Double) for name in METRICS),
    Column("seconds", Double, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("silent_classes", BigInteger, nullable=False),
    Column("outputs", JSON(none_as_null=True)),  # name to value; NULL for none
    PrimaryKeyConstraint("run_id", "net", "iteration"),
    *_in_range("measurement"),
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
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("runs", "repeats", "failed", "diverged")
    ),
    *(Column(name, Double) for base in SPREADS for name in (base, f"{base}_sd")),
    *(Column(f"{name}_n", BigInteger) for name in SPREADS),  # trainings that have the value
    Column("origin", Text, nullable=False),
    *_start(),
    Column("outputs", JSON(none_as_null=True)),  # name to mean, deviation and number of trainings
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
    _one_of("source", SOURCES),
    *_in_range("summary", *SPREADS[1:], of="measurement"),
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

_ENUMERATED = {
    "run.source": SOURCES, "run.status": STATUSES, "run.start_kind": STARTS,
    "run.standing": STANDINGS, "token.scope": SCOPES,
    "summary.source": SOURCES, "summary.start_kind": STARTS,
}  # fmt: skip
_OBJECTS = {
    "network.layers": stored.is_count,
    "measurement.outputs": stored.is_real, "summary.outputs": stored.is_spread,
}  # fmt: skip
stored.check_columns(
    metadata,
    {
        **RANGES,
        "batch.sent": RANGES["contribution.sent"],
        **{f"summary.{name}": RANGES[f"measurement.{name}"] for name in RANKED},
        **{
            f"{of}.start_{name}": RANGES[f"start.{name}"]
            for of in ("run", "summary")
            for name in _STARTED
        },
    },
    _ENUMERATED,
    _OBJECTS,
)
