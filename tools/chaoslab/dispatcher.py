"""A command that trains on a Dask cluster, for the trials: python -m chaoslab.dispatcher SCHEDULER SEED ...

Each training is runs/SEED of solver.prototxt; its result is printed as a line of JSON.
"""

from __future__ import annotations

import json
import sys

from lrbench_caffe.jobs import Job
from lrbench_caffe.jobs.cluster import open_cluster
from lrbench_caffe.terminal import cli

POLICY = "SIN2(k0=0.01, k1=0.05, l=60)"
FLAGS = ("--layers", "stock", "--checkpoint-minutes", "0.005")


def main(argv: list[str]) -> int:
    scheduler, *seeds = argv
    pool = open_cluster(scheduler)
    for seed in seeds:
        pool.submit(
            Job(
                "solver.prototxt",
                seed=int(seed),
                out=f"runs/{seed}",
                policy=POLICY,
                flags=FLAGS,
                retry=True,
            )
        )
    missing = len(seeds)
    while missing:
        result = pool.next(timeout=1)
        if result is not None:
            missing -= 1
            row = {"seed": result.training.seed, "status": result.status, "reason": result.reason}
            print(json.dumps(row), flush=True)
    pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(lambda argv: main(list(argv))))
