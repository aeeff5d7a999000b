"""Databases of every released revision come up to the present one with all that is in them."""

from __future__ import annotations

import multiprocessing
import re

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Engine

from lrbench_caffe.database import Database, DatabaseError, migrate, schema
from lrbench_caffe.database.engine import open_engine
from lrbench_caffe.database.transactions import Transactions
from lrbench_caffe.database.urls import resolve_url

SCRIPTS = ScriptDirectory.from_config(migrate.configuration())
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]

# What a database of a revision may hold, in SQL of that time. A new revision that changes a table
# adds its own entry; the old ones stay as they are.
DATA = {
    "0001": """
        INSERT INTO framework (id, key, name, version, device) VALUES (1001, 'f', 'Caffe', '1.0', 'CPU');
        INSERT INTO task_type (id, key, name, classes) VALUES (1001, 't', 'classification', 10);
        INSERT INTO dataset (id, key, name, channels, height, width, classes, train_samples, test_samples,
            digest) VALUES (1001, 'd', 'old', 1, NULL, 8, 10, 100, NULL, NULL);
        INSERT INTO network (id, key, name, digest, layers, parameters, depth)
            VALUES (1001, 'n', 'Net', 'nd', '{"InnerProduct": 1}', NULL, 1);
        INSERT INTO task (id, key, task_type_id, framework_id, dataset_id, network_id)
            VALUES (1001, 'k', 1001, 1001, 1001, 1001);
        INSERT INTO policy (id, key, text, function, params, num_params)
            VALUES (1001, 'p', 'FIX(k0=0.125)', 'FIX', '{"k0": 0.125}', 1);
        INSERT INTO solver (id, key, type, batch, iter_size, base_lr, momentum, weight_decay)
            VALUES (1001, 's', 'SGD', 10, 1, 0.01, NULL, NULL);
        INSERT INTO run (id, uid, task_id, framework_id, dataset_id, network_id, policy_id, solver_id, source,
            origin, seed, max_iter, test_interval, epoch, machine, started, ended, status, reason, repeats,
            top1_sd, best_top1)
            VALUES (1001, 'old', 1001, 1001, 1001, 1001, 1001, 1001, 'measured', 'runs/old', 1, 20, 10, 10,
            'here', 1, 2, 'finished', NULL, 1, NULL, 62.5);
        INSERT INTO measurement (run_id, net, iteration, lr, top1, top5, ac, cd, cdac, test_loss, train_loss,
            ld, seconds, samples, silent_classes)
            VALUES (1001, 0, 20, 0.125, 62.5, 100, 0.5, 0.25, NULL, 1, 0.5, 0.5, 1.5, 100, 0);
        INSERT INTO summary (task_id, policy_id, function, source, max_iter, solver_id, epoch, runs, repeats,
            failed, diverged, iterations, top1, ld, origin)
            VALUES (1001, 1001, 'FIX', 'measured', 20, 1001, 10, 1, 1, 0, 0, 20, 62.5, 0.5, 'runs/old');
        INSERT INTO meta (name, value) VALUES ('paper results', 'of old');
    """,
}
DATA["0002"] = (
    DATA["0001"]
    + """
        UPDATE run SET start_kind = 'weights', start_key = 'w', start_digest = 'abc', start_filled = 1,
            start_layers = 2, start_name = 'x.caffemodel', layers = 'fast', head = 'ip', best_loss = 1
            WHERE uid = 'old';
        UPDATE measurement SET outputs = '{"loss": 1}' WHERE run_id = 1001;
        UPDATE summary SET start_kind = 'weights', start_key = 'w', test_loss = 1,
            outputs = '{"loss": [1, null, 1]}' WHERE task_id = 1001;
    """
)
DATA["0003"] = (
    DATA["0002"]
    + """
        INSERT INTO batch (id, uid, contributor, note, link, sent)
            VALUES (1001, 'b', 'ada', NULL, 'https://example.org/', 5);
        INSERT INTO token (id, name, hash, scope, made, expires, revoked)
            VALUES (1001, 'ada', 'abc', 'write', 4, NULL, NULL);
        UPDATE run SET batch_id = 1001 WHERE uid = 'old';
    """
)


def to_revision(url: str, revision: str) -> Engine:
    engine = open_engine(resolve_url(url))
    Transactions(engine, 10).write(lambda connection: migrate.upgrade(connection, revision))
    return engine


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_a_released_revision_comes_up_with_its_data(new_url, kind, revision):
    url = new_url(kind, empty=True)
    engine = to_revision(url, revision)
    newest = max(known for known in DATA if known <= revision)
    with engine.begin() as connection:
        for statement in DATA[newest].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()
    with Database.open(url) as database:
        assert database.revision() == schema.REVISION
        record = database.get("old")
        assert (record.policy.text, record.dataset.name, record.dataset.height) == (
            "FIX(k0=0.125)",
            "old",
            None,
        )
        assert [(m.iteration, m.top1, m.ld, m.cdac) for m in record.measurements] == [
            (20, 62.5, 0.5, None)
        ]
        (task,) = [task for task in database.tasks() if task.dataset.name == "old"]
        (summary,) = database.summaries(task.id)
        assert summary.top1.mean == 62.5
        assert len(list(database.runs(source="paper"))) > 50


RUN = """
    INSERT INTO run (id, uid, task_id, framework_id, dataset_id, network_id, policy_id, solver_id, source,
        origin, seed, max_iter, test_interval, epoch, machine, started, ended, status, reason, repeats,
        top1_sd, best_top1)
    VALUES (:id, :uid, 1001, 1001, 1001, 1001, 1001, 1001, :source, :origin, :seed, 20, 10, 10, 'here', 1, 2,
        :status, NULL, 1, NULL, :top1)
"""
TEST = """
    INSERT INTO measurement (run_id, net, iteration, lr, top1, top5, ac, cd, cdac, test_loss, train_loss, ld,
        seconds, samples, silent_classes)
    VALUES (:id, 0, :iteration, 0.125, :top1, NULL, NULL, NULL, NULL, :loss, NULL, NULL, 1, 100, 0)
"""
# As the first revision stored them: uid, source, what follows the directory in the origin, seed,
# status, and the tests as (iteration, Top-1, loss). All are of one group there.
OLD_RUNS = [
    ("scratch1", "measured", "", 1, "finished", [(10, 50.0, 2.0), (20, 60.0, 1.0)]),
    ("scratch1again", "measured", "", 1, "finished", [(10, 51.0, 2.0), (20, 61.0, 1.0)]),
    ("scratch2", "measured", "", 2, "finished", [(20, 70.0, 1.0)]),
    ("fast2", "measured", " (fast layers)", 2, "finished", [(20, 80.0, 1.0)]),
    ("mixed3", "measured", " (stock, then fast layers)", 3, "diverged", [(20, 10.0, 1.0)]),
    ("continued", "measured", " (from s/x_iter_9.solverstate)", 1, "finished", [(20, 95.0, 1.0)]),
    (
        "finetuned",
        "measured",
        " (from a.caffemodel, b.caffemodel, fast layers)",
        1,
        "finished",
        [(20, 96.0, 1)],
    ),
    ("overflow", "measured", "", 2**32 + 9, "failed", [(10, 30.0, 3.0)]),
    ("log", "imported", "", 1, "finished", [(10, 40.0, 2.0), (20, 41.0, 1.0)]),
    ("log tuned", "imported", " (finetuned from x.caffemodel)", 2, "finished", [(0, 90.0, 2.0)]),
    ("log resumed", "imported", "", 3, "finished", [(20, 91.0, 1.0)]),
    ("running", "measured", "", 7, "running", [(10, 20.0, 2.0)]),
]


def test_runs_of_the_first_revision_keep_everything_and_are_pooled_by_what_is_known(new_url, kind):
    url = new_url(kind, empty=True)
    engine = to_revision(url, "0001")
    with engine.begin() as connection:
        for statement in DATA["0001"].split("INSERT INTO run ")[0].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))
        for number, (uid, source, remark, seed, status, tests) in enumerate(OLD_RUNS, 2000):
            row = {
                "id": number,
                "uid": uid,
                "source": source,
                "origin": f"/runs/{uid}{remark}",
                "seed": seed,
            }
            top1 = max(top1 for _, top1, _ in tests)
            connection.execute(text(RUN), {**row, "status": status, "top1": top1})
            for iteration, top, loss in tests:
                test = {"id": number, "iteration": iteration, "top1": top, "loss": loss}
                connection.execute(text(TEST), test)
    engine.dispose()
    with Database.open(url) as database:
        for uid, source, remark, seed, status, tests in OLD_RUNS:
            record = database.get(uid)
            assert (record.origin, record.source, record.status) == (
                f"/runs/{uid}{remark}",
                source,
                status,
            )
            assert record.seed == seed % 2**32
            assert [(m.iteration, m.top1, m.test_loss, m.outputs) for m in record.measurements] == [
                (*test, {}) for test in tests
            ]
        starts = {uid: database.get(uid).start.kind for uid, *_ in OLD_RUNS}
        layers = {uid: database.get(uid).layers for uid, *_ in OLD_RUNS}
        (task,) = [task for task in database.tasks() if task.dataset.name == "old"]
        found = database.summaries(task.id)
        reached = database.iterations_to_loss(task.id, 1.0)
        assert len(list(database.runs(source="paper"))) > 50
    not_known = ["continued", "finetuned", "log tuned", "log resumed"]
    assert [uid for uid, kind in starts.items() if kind == "unknown"] == not_known
    assert {kind for uid, kind in starts.items() if uid not in not_known} == {"scratch"}
    stock = ["scratch1", "scratch1again", "scratch2", "continued", "overflow", "running"]
    assert layers == {
        **dict.fromkeys(stock, "stock"),
        "fast2": "fast", "mixed3": "stock, then fast", "finetuned": "fast",
        **dict.fromkeys(["log", "log tuned", "log resumed"]),
    }  # fmt: skip
    # Seed 1 counts once: 60, 70 and 80. What nobody knows the start of is by itself.
    scratch = next(s for s in found if s.source == "measured" and s.start.known)
    assert (scratch.top1.mean, scratch.runs, scratch.failed, scratch.diverged) == (70.0, 3, 1, 1)
    assert sorted(s.top1.mean for s in found) == [41.0, 70.0, 90.0, 91.0, 95.0, 96.0]
    assert [s.runs for s in found if not s.start.known] == [1] * 4
    assert reached[scratch.id].runs == 3


def test_revisions_are_one_line_and_the_newest_is_ours():
    assert SCRIPTS.get_heads() == [schema.REVISION]
    assert sorted(REVISIONS) == REVISIONS
    assert set(DATA) <= set(REVISIONS)


def definitions(engine: Engine) -> list[str]:
    """All tables, columns, constraints and indexes, as the database itself writes them down."""
    if engine.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    else:
        query = """
            SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
                FROM pg_constraint WHERE conrelid <> 0
            UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, collation_name, is_nullable,
                character_maximum_length, column_default)
                FROM information_schema.columns WHERE table_schema = 'public'
        """
    with engine.connect() as connection:
        found = [re.sub(r"\s+", " ", row[0]) for row in connection.execute(text(query))]
    if engine.dialect.name == "sqlite":
        found = [FOREIGN_KEY.sub("", line) for line in found] + [
            " ".join(key) for line in found for key in foreign_keys(line)
        ]
    return sorted(line for line in found if "alembic_version" not in line)


# A column that is added to a table of SQLite has its foreign key beside it, not behind all columns.
FOREIGN_KEY = re.compile(r",? CONSTRAINT fk_\w+ (FOREIGN KEY\([^)]*\) )?REFERENCES \w+ \([^)]*\)")
BEHIND = re.compile(r"CONSTRAINT (fk_\w+) FOREIGN KEY\(([^)]*)\) REFERENCES (\w+ \([^)]*\))")
BESIDE = re.compile(r"(\w+) \w+ CONSTRAINT (fk_\w+) REFERENCES (\w+ \([^)]*\))")


def foreign_keys(line: str) -> list[tuple[str, str, str]]:
    """Name, columns and target of each foreign key in the SQL of a table."""
    beside = [(name, column, target) for column, name, target in BESIDE.findall(line)]
    return [*BEHIND.findall(line), *beside]


def test_the_migrations_make_the_tables_that_the_program_knows(new_url, kind):
    migrated = to_revision(new_url(kind, empty=True), "head")
    declared = create_engine(resolve_url(new_url(kind, empty=True)))
    schema.metadata.create_all(declared)
    assert definitions(migrated) == definitions(declared)
    assert len(definitions(migrated)) > 30
    migrated.dispose()
    declared.dispose()


def test_a_newer_database_is_left_alone(url):
    Database.open(url).close()
    engine = open_engine(resolve_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match="at revision 9999, of a newer version of this program"):
        Database.open(url)
    engine.dispose()


def test_a_database_of_another_program_is_left_alone(new_url, kind):
    url = new_url(kind, empty=True)
    engine = open_engine(resolve_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE run (id INTEGER)")
    name = url.rpartition("/")[2]
    with pytest.raises(
        DatabaseError, match=f"{name}: it has tables named run that this program did not make"
    ):
        Database.open(url)
    assert inspect(engine).get_table_names() == ["run"]
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('beef')")
    with pytest.raises(
        DatabaseError, match=f"{name}: it belongs to another program, .* revision beef"
    ):
        Database.open(url)
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(new_url, kind, monkeypatch):
    url = new_url(kind, empty=True)

    def broken():
        raise DatabaseError("in the middle")

    monkeypatch.setattr("lrbench_caffe.database.preparing.paper_records", broken)
    with pytest.raises(DatabaseError, match="in the middle"):
        Database.open(url)
    engine = open_engine(resolve_url(url))
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def _open(url: str, start, failures) -> None:
    start.wait()
    try:
        with Database.open(url) as database:
            assert database.revision() == schema.REVISION
    except BaseException as error:
        failures.put(repr(error))
        raise


@pytest.mark.ci
def test_many_can_open_a_new_database_at_once(new_url, kind):
    url = new_url(kind, empty=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lrbench_caffe.database.store"])
    start, failures = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_open, args=(url, start, failures)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * 8, failures.get(timeout=5)
    with Database.open(url) as database:
        uids = [record.uid for record in database.runs()]
        assert len(uids) == len(set(uids)) > 50
