"""Splitting an LMDB by record: which records, and what the two parts hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.datasets import lmdb_split
from lrbench_caffe.datasets.lmdb_scan import read_labels
from lrbench_caffe.datasets.lmdb_split import choose, digest_of, split_bytes, split_lmdb
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.errors import InputError
from tests.datasets.lmdb_files import records


def images(path: Path, labels: list[int], side: int = 4) -> Path:
    """An LMDB with these labels, each image with its number in the first pixel."""
    pixels = np.zeros((len(labels), 1, side, side), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    write_lmdb(path, pixels, labels, (1, side, side))
    return path


def counted(labels: list[int], count: int, seed: int = 1) -> dict[int, int]:
    held = choose(labels, count, seed)
    assert held.dtype == bool and held.sum() == count
    return dict(Counter(np.array(labels)[held].tolist()))


def test_each_label_gets_its_share() -> None:
    # A tenth of 60, 30 and 10.
    assert counted([7] * 60 + [-1] * 30 + [3] * 10, 10) == {7: 6, -1: 3, 3: 1}


def test_largest_remainders_first() -> None:
    # 4 of 20: 1.4, 1.4 and 1.2; the fourth goes to one of the first two, by lot.
    found = {tuple(sorted(counted([0] * 7 + [1] * 7 + [2] * 6, 4, s).items())) for s in range(20)}
    assert found == {((0, 2), (1, 1), (2, 1)), ((0, 1), (1, 2), (2, 1))}


def test_a_label_of_one_record_is_kept_for_the_training() -> None:
    # 3 of 12: a quarter of a record each, and 2.25 of nine; all remainders are equal.
    assert counted([0, 1, 2] + [3] * 9, 3) == {3: 3}
    assert counted([0, 1], 1, seed=4).popitem()[1] == 1  # where there is nothing else


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_no_label_is_off_by_a_record(labels: list[int], share: float, seed: int) -> None:
    count = int(share * len(labels))
    found, sizes = counted(labels, count, seed), Counter(labels)
    for label, size in sizes.items():
        slack = 1 if min(sizes.values()) > 1 else len(sizes)
        assert abs(found.get(label, 0) - count * size / len(labels)) <= slack
        assert found.get(label, 0) <= size


def test_the_seed_alone_decides() -> None:
    labels = [n % 3 for n in range(300)]
    assert (choose(labels, 30, 1) == choose(labels, 30, 1)).all()
    assert (choose(labels, 30, 1) != choose(labels, 30, 2)).any()
    # A study continues with the records that it began with, whatever NumPy is installed since.
    assert digest_of(choose(labels, 30, 1)) == "d06daeb49c872451a2269512d82f95da"


def test_both_parts_hold_the_records_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_split, "_COMMIT_BYTES", 100)  # several transactions
    source = images(tmp_path / "a_lmdb", [n % 4 for n in range(40)], side=8)
    assert read_labels(source).tolist() == [n % 4 for n in range(40)]
    held = choose(read_labels(source), 8, 1)
    rest, held_out = tmp_path / "rest_lmdb", tmp_path / "held_lmdb"
    for _ in range(2):  # what was there is replaced
        split_lmdb(source, held, rest, held_out)
    whole = records(source)
    assert records(rest) == [record for record, out in zip(whole, held) if not out]
    assert records(held_out) == [record for record, out in zip(whole, held) if out]
    size = sum((path / "data.mdb").stat().st_size for path in (rest, held_out))
    assert size <= split_bytes(source)


def test_records_of_several_pages(tmp_path: Path) -> None:
    source = images(tmp_path / "a_lmdb", [0, 1] * 10, side=100)
    held = choose(read_labels(source), 4, 1)
    split_lmdb(source, held, tmp_path / "rest_lmdb", tmp_path / "held_lmdb")
    parts = records(tmp_path / "rest_lmdb") + records(tmp_path / "held_lmdb")
    assert sorted(parts) == records(source)


def test_another_number_of_records(tmp_path: Path) -> None:
    source = images(tmp_path / "a_lmdb", [0] * 5)
    with pytest.raises(InputError, match="a_lmdb: 5 records; expected 6"):
        split_lmdb(source, np.zeros(6, bool), tmp_path / "rest", tmp_path / "held")


def test_keys_in_another_order(tmp_path: Path) -> None:
    source = images(tmp_path / "a_lmdb", [0] * 5)
    with (source / "data.mdb").open("r+b") as file:
        for meta in (0, 4096):  # MDB_REVERSEKEY, 2, in the flags of the main tree in both headers
            file.seek(meta + 92)
            file.write(b"\2\0")
    with pytest.raises(InputError, match="a_lmdb: its keys are not in the order of their bytes"):
        split_bytes(source)
