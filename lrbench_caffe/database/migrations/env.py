"""What Alembic runs: the migrations, in the transaction of whoever asked (lrbench_caffe.database.migrate)."""

from __future__ import annotations

from alembic import context

# Both kinds of database can undo table definitions. Alembic does not expect it of SQLite, because
# Python's driver spoils it unless transactions are begun by hand, as they are here.
context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
