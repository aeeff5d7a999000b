"""From whom runs are that were uploaded, whether they are shown, who may upload, and stamps of tasks."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

revision = "0003"
down_revision = "0002"

YEAR_9999 = 253_402_300_799  # seconds since 1970
STANDINGS = "'shown', 'unverified', 'hidden'"
NOT_SHOWN = "standing <> 'shown'"
SCOPES = "'read', 'write', 'admin'"

Id = BigInteger().with_variant(Integer(), "sqlite")
Uid = Text().with_variant(Text(collation="C"), "postgresql")
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _time(name: str) -> CheckConstraint:
    return CheckConstraint(f"{name} BETWEEN 0 AND {YEAR_9999}", name=f"{name}_range")


batch = Table(
    "batch",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("uid", Uid, nullable=False),
    Column("contributor", Text, nullable=False),
    Column("note", Text),
    Column("link", Text),
    Column("sent", Double, nullable=False),
    _time("sent"),
    UniqueConstraint("uid"),
    Index(None, "contributor"),
)

token = Table(
    "token",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("made", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    CheckConstraint(f"scope IN ({SCOPES})", name="scope"),
    *map(_time, ("made", "expires", "revoked")),
    UniqueConstraint("name"),
    UniqueConstraint("hash"),
)


def upgrade() -> None:
    batch.create(op.get_bind())
    token.create(op.get_bind())
    # One by one, so that SQLite does not make the table anew: to drop it would delete all
    # measurements.
    number = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    for column in (
        f"batch_id {number} CONSTRAINT fk_run_batch_id REFERENCES batch (id)",
        "standing TEXT DEFAULT 'shown' NOT NULL "
        f"CONSTRAINT ck_run_standing CHECK (standing IN ({STANDINGS}))",
        "doubt TEXT",
    ):
        op.execute(f"ALTER TABLE run ADD COLUMN {column}")
    op.execute("ALTER TABLE task ADD COLUMN stamp BIGINT DEFAULT 0 NOT NULL")
    op.create_index("ix_run_batch_id", "run", ["batch_id"])
    op.create_index(
        "ix_run_not_shown",
        "run",
        ["task_id", "standing"],
        postgresql_where=text(NOT_SHOWN),
        sqlite_where=text(NOT_SHOWN),
    )


def downgrade() -> None:
    raise NotImplementedError("who uploaded runs would be lost; restore a backup")
