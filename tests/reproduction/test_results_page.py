"""The tables in docs/results are what the trainings beside them give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.reproduction.plan import plan
from lrbench_caffe.reproduction.publishing import write
from lrbench_caffe.terminal import cli

RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "results"


@pytest.mark.parametrize(("table", "seeds", "trainings"), [("table7", 3, 21), ("table8", 5, 15)])
def test_a_table_is_of_the_trainings_beside_it(
    tmp_path: Path, new_database: str, table: str, seeds: int, trainings: int
) -> None:
    assert cli.run(db.main, ["import", str(RESULTS / f"{table}.jsonl"), "--db", new_database]) == 0
    with Database.open(new_database) as database:
        records = list(database.runs(source="measured", measurements=True))
    assert len(records) == trainings
    files = write(tmp_path, replace(plan(table), seeds=tuple(range(1, seeds + 1))), records)
    texts = [file for file in files if file.suffix in (".md", ".csv")]
    assert len(texts) == 3
    for file in texts:
        assert file.read_text(encoding="utf-8") == (RESULTS / file.name).read_text(
            encoding="utf-8"
        ), file
