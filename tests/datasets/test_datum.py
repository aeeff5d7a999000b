"""The messages against bytes worked out by hand from caffe.proto's field numbers."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrbench_caffe.datasets.datum import Datum, datum_bytes, mean_bytes

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def test_datum_bytes_by_hand():
    image = np.array([[[1, 2, 3], [4, 5, 255]]], np.uint8)
    # A field's key is 8 * number + wire type (0 a number, 2 bytes): channels 08, height 10, width
    # 18, data 22 with its length, label 28.
    expected = bytes.fromhex("08 01  10 02  18 03  22 06 01 02 03 04 05 ff  28 07")
    assert datum_bytes(image, 7) == expected


def test_mean_bytes_by_hand():
    mean = np.array([[[0.5]], [[100.0]]], np.float32)
    # num 08, channels 10, height 18, width 20, data 2a: packed, 8 bytes of two little-endian
    # floats.
    expected = bytes.fromhex("08 01  10 02  18 01  20 01  2a 08") + struct.pack("<2f", 0.5, 100.0)
    assert mean_bytes(mean) == expected


@given(shapes.flatmap(lambda shape: arrays(np.uint8, shape)), st.integers(0, 2**31 - 1))
def test_datum_round_trip(image, label):
    datum = Datum.FromString(datum_bytes(image, label))
    assert (datum.channels, datum.height, datum.width) == image.shape
    assert datum.data == image.tobytes()
    assert datum.label == label
    assert not datum.encoded
