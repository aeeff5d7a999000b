"""A writer of the trials with PostgreSQL: stores tests one by one and prints each as soon as it is confirmed.

python -m chaoslab.writer RUN_DIRECTORY UID TESTS: the record is that of the run directory, under
another uid.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from lrbench_caffe.database import Database
from lrbench_caffe.runs.syncing import read_run
from lrbench_caffe.terminal import cli

PATIENCE = 120.0  # seconds, as somebody who must not lose anything


def main(argv: list[str]) -> int:
    folder, uid, tests = Path(argv[0]), argv[1], int(argv[2])
    record = read_run(folder)
    one = record.measurements[0]
    with Database.open(None, patience=PATIENCE) as database:
        database.begin_run(
            dataclasses.replace(record, uid=uid, status="running", ended=None, measurements=[])
        )
        for iteration in range(tests):
            database.add_measurements(
                uid, [dataclasses.replace(one, iteration=iteration, outputs={})]
            )
            print(iteration, flush=True)
        database.end_run(uid, "finished", None, record.ended or 0.0)
    print("ended", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(lambda argv: main(list(argv))))
