"""A database with many runs: 50 tasks, one of them with a fifth of all; three seeds of each policy."""

from __future__ import annotations

import dataclasses
import io
import json
import random

from sqlalchemy import func, select, text

from lrbench_caffe.database import Database, schema
from lrbench_caffe.database.rows import MEASURED, start_values, store_parts
from lrbench_caffe.database.summaries import RunGroup, refresh
from lrbench_caffe.database.writing import measurement_row
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import (
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
)

TASKS = 50
BUSY_SHARE = 5  # one run in so many is of the first task
SEEDS = 3
TESTS = 20
TOP = 10
FUNCTIONS = ("TRI", "TRI2", "SIN", "SIN2", "COS", "COS2")
SOLVER = SolverSettings("SGD", 100, 1, 0.01, 0.9, 0.0005)


def record(task: int, policy: int, uid: str, seed: int) -> RunRecord:
    function = FUNCTIONS[policy % len(FUNCTIONS)]
    params = {"k0": round(0.001 + 1e-7 * policy, 7), "k1": 0.06, "l": 2000}
    words = ", ".join(f"{name}={value!r}" for name, value in params.items())
    layers = {"Convolution": 1 + task % 7, "InnerProduct": 1}
    return RunRecord(
        uid=uid, source="measured", origin=f"runs/{uid}", framework=Framework("Caffe", "1.0.0", "GPU"),
        task_type="classification", dataset=Dataset(f"data{task}", 3, 32, 32, 10, 50000, 10000, f"d{task}"),
        network=Network(f"Net{task}", f"n{task}", layers, 1000 * (100 + task), 2 + task % 7),
        policy=PolicyRecord(f"{function}({words})", function, params, 3),
        solver=SOLVER, seed=seed, max_iter=70000, test_interval=3500, epoch=500.0, machine="bench",
        started=1.7e9, ended=1.7e9 + 3600, status="finished",
    )  # fmt: skip


def tests(chance: random.Random) -> list[Measurement]:
    """20 measurements that rise towards a Top-1 of its own."""
    goal = chance.uniform(60, 95)
    return [
        Measurement(
            iteration=3500 * (i + 1), lr=0.01, top1=goal * (1 - 0.5 ** (i + 1)) - chance.uniform(0, 1),
            top5=99.0, ac=chance.random(), cd=chance.random(), cdac=chance.random(), test_loss=0.5,
            train_loss=0.4, ld=chance.gauss(0, 0.1), seconds=3.0 * i, samples=10000,
        )
        for i in range(TESTS)
    ]  # fmt: skip


def fill(database: Database, runs: int) -> None:
    """Put runs in past the API: by COPY, and their summaries by one query. ``verify`` checks the result."""
    chance = random.Random(0)
    policies = -(-runs // SEEDS)
    with database._engine.begin() as connection:
        ids = copy_parts(connection, policies)
        first = (
            connection.execute(select(func.coalesce(func.max(schema.run.c.id), 0))).scalar_one() + 1
        )
        rows, measured = io.StringIO(), io.StringIO()
        for number in range(runs):
            policy = number // SEEDS
            task = 0 if policy % BUSY_SHARE == 0 else 1 + policy % (TASKS - 1)
            run = record(task, policy, f"bench-{number:08}", number % SEEDS)
            made = tests(chance)
            best = max(m.top1 or 0.0 for m in made)
            values = {
                **dataclasses.asdict(run),
                **ids["task"][task],
                "best_top1": best,
                "id": first + number,
            }
            values |= {"standing": "shown"}
            values |= {"policy_id": ids["policy"] + policy, **start_values(run.start, run.uid)}
            rows.write(line(values.get(c.name) for c in schema.run.c))
            for m in made:
                measured.write(line(measurement_row(first + number, m)))
        copy(connection, "run", [c.name for c in schema.run.c], rows)
        copy(connection, "measurement", ["run_id", *MEASURED], measured)
        for table in ("run", "policy"):
            connection.execute(
                text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")
            )
        connection.execute(text(summaries_by_sql()))
    with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))  # what filling left behind is not to be timed


def copy_parts(connection, policies: int) -> dict:
    """Store what runs refer to; returns each task's references, and the id of the first policy."""
    references = ("task", "framework", "dataset", "network", "solver")
    tasks = []
    for task in range(TASKS):
        ids = store_parts(connection, record(task, 0, "x", 0), {})
        tasks.append({f"{name}_id": ids[name] for name in references})
    first = connection.execute(select(func.max(schema.policy.c.id))).scalar_one() + 1
    rows = io.StringIO()
    for number in range(policies):
        policy = record(0, number, "x", 0).policy
        params = json.dumps(policy.params)
        rows.write(
            line(
                [
                    first + number,
                    f"bench-{number}",
                    policy.text,
                    policy.function,
                    params,
                    policy.num_params,
                ]
            )
        )
    copy(connection, "policy", ["id", "key", "text", "function", "params", "num_params"], rows)
    return {"task": tasks, "policy": first}


def line(values) -> str:
    return "\t".join("\\N" if v is None else str(v) for v in values) + "\n"


def copy(connection, table: str, columns: list[str], rows: io.StringIO) -> None:
    rows.seek(0)
    with connection.connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", rows)


def summaries_by_sql() -> str:
    spreads = {name: "iteration" if name == "iterations" else name for name in schema.SPREADS}
    columns = ", ".join(f"{name}, {name}_sd, {name}_n" for name in spreads)
    values = ", ".join(f"avg(b.{c}), stddev_pop(b.{c}), count(b.{c})" for c in spreads.values())
    group = "r.task_id, r.policy_id, p.function, r.source, r.max_iter, r.solver_id, r.epoch"
    return f"""
        INSERT INTO summary (task_id, policy_id, function, source, max_iter, solver_id, epoch, runs, repeats,
            failed, diverged, origin, {columns})
        SELECT {group}, count(*), count(*), 0, 0, max(r.origin), {values}
        FROM run r JOIN policy p ON p.id = r.policy_id
        CROSS JOIN LATERAL (SELECT * FROM measurement m WHERE m.run_id = r.id AND m.net = 0
            AND m.top1 = r.best_top1 ORDER BY m.iteration LIMIT 1) b
        WHERE r.source = 'measured' GROUP BY {group}"""


def verify(database: Database, task_id: int) -> None:
    """The summaries filled in are those that the program would have made."""
    before = database.summaries(task_id, limit=TOP)
    names = [schema.run.c[name] for name in RunGroup._fields]
    with database._engine.begin() as connection:
        query = select(*names).where(schema.run.c.task_id == task_id).limit(TOP)
        refresh(connection, {RunGroup(*row) for row in connection.execute(query)})
    for old, new in zip(before, database.summaries(task_id, limit=TOP)):
        assert (
            old.policy == new.policy
            and old.top1
            and new.top1
            and abs(old.top1.mean - new.top1.mean) < 1e-9
        )
