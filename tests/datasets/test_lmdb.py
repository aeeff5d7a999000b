"""Writing LMDBs and looking into them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrbench_caffe.datasets import lmdb_writer
from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.lmdb_info import inspect, read_summary
from lrbench_caffe.datasets.lmdb_writer import locked, stored_bytes, write_file, write_lmdb
from lrbench_caffe.errors import InputError
from tests.datasets.lmdb_files import records


def small(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 1, 2, 2)
    return images, np.arange(count, dtype=np.uint8)


def put(path: Path, **values: bytes) -> None:
    environment = lmdb.open(str(path))
    with environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    environment.close()


def test_records_by_hand(tmp_path):
    images = np.array([[[[10, 20], [30, 40]]], [[[50, 60], [70, 80]]]], np.uint8)
    summary = write_lmdb(tmp_path / "a_lmdb", images, [3, 1], (1, 2, 2))
    assert [key for key, _ in records(tmp_path / "a_lmdb")] == [b"00000000", b"00000001"]
    second = Datum.FromString(records(tmp_path / "a_lmdb")[1][1])
    assert (second.channels, second.height, second.width, second.label) == (1, 2, 2, 1)
    assert list(second.data) == [50, 60, 70, 80]
    by_hand = bytes([3, 0, 0, 0, 10, 20, 30, 40, 1, 0, 0, 0, 50, 60, 70, 80])
    assert summary.digest == hashlib.sha256(by_hand).hexdigest()
    assert summary.class_counts == {1: 1, 3: 1}


def test_key_digits(tmp_path):
    images, labels = small()
    write_lmdb(tmp_path / "a_lmdb", images, labels, (1, 2, 2), key_digits=5)
    assert [key for key, _ in records(tmp_path / "a_lmdb")] == [b"00000", b"00001", b"00002"]


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    labels=st.lists(st.integers(0, 255), min_size=1, max_size=30),
    data=st.data(),
)
def test_round_trip(shape, labels, data):
    images = data.draw(arrays(np.uint8, (len(labels), *shape)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x_lmdb"
        written = write_lmdb(path, images, labels, shape)
        assert read_summary(path) == written
        found = [Datum.FromString(value) for _, value in records(path)]
        info = inspect(path)
    assert [datum.label for datum in found] == labels
    assert b"".join(datum.data for datum in found) == images.tobytes()
    assert (info.entries, info.shape, info.first_label) == (len(labels), shape, labels[0])


def test_more_records_than_one_transaction_holds(tmp_path):
    images = np.zeros((2500, 1, 1, 1), np.uint8)
    labels = np.arange(2500) % 10
    assert write_lmdb(tmp_path / "a_lmdb", images, labels, (1, 1, 1)).entries == 2500
    assert inspect(tmp_path / "a_lmdb").entries == 2500


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 40, 40)])
def test_estimate_of_the_space_is_close(tmp_path, shape):
    images = np.zeros((1500, *shape), np.uint8)
    write_lmdb(tmp_path / "a_lmdb", images, np.zeros(1500, np.uint8), shape)
    size = (tmp_path / "a_lmdb" / "data.mdb").stat().st_size
    assert 0.9 * size < stored_bytes(1500, shape) < 1.5 * size


def test_inspect(tmp_path):
    images, labels = small()
    write_lmdb(tmp_path / "a_lmdb", images, labels + 5, (1, 2, 2))
    info = inspect(tmp_path / "a_lmdb")
    assert (info.entries, info.channels, info.height, info.width) == (3, 1, 2, 2)
    assert (info.encoded, info.is_float, info.first_label, info.first_key) == (
        False,
        False,
        5,
        b"00000000",
    )


def test_inspect_encoded_and_float(tmp_path):
    put(
        tmp_path / "encoded_lmdb",
        a=Datum(data=b"\xff\xd8jpeg", label=2, encoded=True).SerializeToString(),
    )
    info = inspect(tmp_path / "encoded_lmdb")
    assert info.encoded and info.shape == (0, 0, 0)
    floats = Datum(channels=2, height=1, width=1, float_data=[0.5, 1.5])
    put(tmp_path / "float_lmdb", a=floats.SerializeToString())
    assert inspect(tmp_path / "float_lmdb").is_float


def test_inspect_writes_nothing(tmp_path):
    images, labels = small()
    write_lmdb(tmp_path / "a_lmdb", images, labels, (1, 2, 2))
    (tmp_path / "a_lmdb" / "lock.mdb").unlink()
    inspect(tmp_path / "a_lmdb")
    assert os.listdir(tmp_path / "a_lmdb") == ["data.mdb"]


def test_inspect_while_another_process_reads(tmp_path):
    images, labels = small()
    path = tmp_path / "a_lmdb"
    write_lmdb(path, images, labels, (1, 2, 2))
    code = (
        "import lmdb, sys; e = lmdb.open(sys.argv[1], readonly=True); t = e.begin();"
        "print('open', flush=True); sys.stdin.read(); print(len(list(t.cursor())))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    reader = subprocess.Popen([sys.executable, "-c", code, str(path)], text=True, **pipes)
    assert reader.stdout.readline() == "open\n"
    assert inspect(path).entries == 3
    assert reader.communicate("")[0] == "3\n"


def test_inspect_from_many_threads(tmp_path):
    images, labels = small()
    write_lmdb(tmp_path / "a_lmdb", images, labels, (1, 2, 2))
    found: list[int] = []
    look = lambda: found.extend(inspect(tmp_path / "a_lmdb").entries for _ in range(20))  # noqa: E731
    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 160


def nothing(path: Path) -> None:
    pass


def a_file(path: Path) -> None:
    path.write_text("x")


def empty_folder(path: Path) -> None:
    path.mkdir()


def leveldb(path: Path) -> None:
    path.mkdir()
    (path / "CURRENT").write_text("MANIFEST-000001\n")


def garbage(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(b"no lmdb " * 2000)


def truncated(path: Path) -> None:
    images, labels = small()
    write_lmdb(path, images, labels, (1, 2, 2))
    os.truncate(path / "data.mdb", 100)


def halved(path: Path) -> None:
    write_lmdb(path, np.zeros((100, 1, 28, 28), np.uint8), np.zeros(100, np.uint8), (1, 28, 28))
    os.truncate(path / "data.mdb", (path / "data.mdb").stat().st_size // 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "no such LMDB folder"),
        (a_file, "is a file; a Caffe LMDB is a folder with a data.mdb in it"),
        (empty_folder, "not an LMDB, it contains no data.mdb$"),
        (leveldb, "looks like a LevelDB, which needs backend: LEVELDB"),
        (garbage, "cannot be opened as an LMDB"),
        (truncated, "cannot be opened as an LMDB"),
        (halved, "truncated, data.mdb has [0-9,]+ bytes; its header announces [0-9,]+"),
        (put, "the LMDB is empty; expected at least one record"),
        (lambda path: put(path, k=b"not a datum"), "record k is not a Caffe Datum"),
        (lambda path: put(path, k=b""), "record k is not a Caffe Datum"),
    ],
)
def test_inspect_errors(tmp_path, make, message):
    make(tmp_path / "x_lmdb")
    with pytest.raises(InputError, match=message) as caught:
        inspect(tmp_path / "x_lmdb")
    assert str(caught.value).startswith(str(tmp_path / "x_lmdb"))


def test_summary_finds_a_record_of_another_shape(tmp_path):
    one = Datum(channels=1, height=1, width=2, data=b"ab")
    two = Datum(channels=1, height=2, width=1, data=b"ab")
    put(tmp_path / "x_lmdb", a=one.SerializeToString(), b=two.SerializeToString())
    with pytest.raises(InputError, match="record b is 1x2x1 in 2 bytes; expected 1x1x2 in 2 bytes"):
        read_summary(tmp_path / "x_lmdb")


HANGING_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from lrbench_caffe.datasets.lmdb_writer import locked, write_lmdb

def images():
    for number in range(3000):
        if number == 2500:
            print("midway", flush=True)
            time.sleep(60)
        yield np.zeros((1, 2, 2), np.uint8)

path = Path(sys.argv[1])
with locked(path.parent):
    write_lmdb(path, images(), np.zeros(3000, np.uint8), (1, 2, 2))
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, stop):
    path = tmp_path / "x_lmdb"
    command = [sys.executable, "-c", HANGING_WRITER, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert writer.stdout.readline() == "midway\n"
    writer.send_signal(stop)
    writer.wait()
    writer.stdout.close()
    assert not path.exists()
    images, labels = small()
    with locked(tmp_path):  # not held any more
        write_lmdb(path, images, labels, (1, 2, 2))
    assert os.listdir(tmp_path) == ["x_lmdb"]
    assert inspect(path).entries == 3


def test_a_failing_source_keeps_the_lmdb_that_was_there(tmp_path):
    images, labels = small()
    write_lmdb(tmp_path / "x_lmdb", images, labels, (1, 2, 2))

    def failing():
        yield images[0]
        raise RuntimeError("source gone")

    with pytest.raises(RuntimeError, match="source gone"):
        write_lmdb(tmp_path / "x_lmdb", failing(), labels, (1, 2, 2))
    assert os.listdir(tmp_path) == ["x_lmdb"]
    assert inspect(tmp_path / "x_lmdb").entries == 3


def test_replaces_an_lmdb(tmp_path):
    write_lmdb(tmp_path / "x_lmdb", *small(3), (1, 2, 2))
    write_lmdb(tmp_path / "x_lmdb", *small(5), (1, 2, 2))
    assert os.listdir(tmp_path) == ["x_lmdb"]
    assert inspect(tmp_path / "x_lmdb").entries == 5


def test_too_little_space_is_found_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1_000_000, "total": 2_000_000})
    monkeypatch.setattr(lmdb_writer.shutil, "disk_usage", lambda _: usage)
    images = np.zeros((2000, 1, 28, 28), np.uint8)
    with pytest.raises(
        InputError, match=r"x_lmdb: needs about 1\.8 MB, 1\.0 MB are free there; disk full"
    ):
        write_lmdb(tmp_path / "x_lmdb", images, np.zeros(2000, np.uint8), (1, 28, 28))
    assert os.listdir(tmp_path) == []


def test_a_write_cut_short_by_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "is_full", lambda folder, scanty: True)
    message = "x: disk full; free some space or choose another out"
    with pytest.raises(InputError, match=message), lmdb_writer.writing_to(tmp_path / "x"):
        raise lmdb.Error("mdb_txn_commit: Input/output error")


LIMITED_WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.errors import InputError

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    images = np.zeros((2000, 1, 28, 28), np.uint8)
    write_lmdb(Path(sys.argv[1]), images, np.zeros(2000, np.uint8), (1, 28, 28))
except InputError as error:
    print(error)
"""


def test_a_write_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", LIMITED_WRITER, str(tmp_path / "x_lmdb")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{tmp_path / 'x_lmdb'}: ")
    assert "cannot write (" in done.stdout or "disk full" in done.stdout
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="file/data: cannot write"),
        locked(tmp_path / "file" / "data"),
    ):
        pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("name", ["/proc/x", "/proc/self"])
def test_a_place_without_a_disk_is_not_called_full(name):
    message = rf"^{name}.*: cannot write \(.+\); choose another out$"
    with pytest.raises(InputError, match=message), locked(Path(name)):
        write_lmdb(Path(name) / "x_lmdb", *small(3), (1, 2, 2))


def test_write_file_replaces_at_once(tmp_path):
    write_file(tmp_path / "x", b"one")
    write_file(tmp_path / "x", b"two")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"two"
