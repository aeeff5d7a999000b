"""As much of numpy as the worker and the fake caffe touch, for a Python 2.7 that has none."""

from __future__ import division

import struct

CODES = {"<f4": "f", "<f8": "d", "<i4": "i", "<i8": "q", "|u1": "B"}


class dtype(object):
    def __init__(self, name):
        self.str = getattr(name, "str", name)
        self.code = CODES[self.str]
        self.itemsize = struct.calcsize("<" + self.code)


class Scalar(object):
    """numpy.float32 and its like: a type, and a function that rounds."""

    def __init__(self, name):
        self.str = name

    def __call__(self, value):
        code = "<" + CODES[self.str]
        return struct.unpack(code, struct.pack(code, value))[0]


float32, float64, uint8 = Scalar("<f4"), Scalar("<f8"), Scalar("|u1")


class ndarray(object):
    def __init__(self, values, shape, kind):
        self.dtype = dtype(kind)
        self.shape = tuple(shape)
        self.values = [Scalar(self.dtype.str)(value) for value in values]

    @property
    def __array_interface__(self):
        return {"data": (id(self.values), False)}

    @property
    def size(self):
        return len(self.values)

    def __len__(self):
        return self.shape[0]

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, index):
        assert len(self.shape) == 1
        found = self.values[index]
        return ndarray(found, [len(found)], self.dtype) if isinstance(index, slice) else found

    def __setitem__(self, index, other):
        assert index is Ellipsis and self.shape == other.shape
        self.values[:] = other.values

    def tobytes(self):
        return struct.pack("<%d%s" % (len(self.values), self.dtype.code), *self.values)

    def reshape(self, shape):
        return ndarray(self.values, shape, self.dtype)

    def copy(self):
        return self.reshape(self.shape)

    def ravel(self):
        return self.reshape([len(self.values)])

    def sum(self):
        return sum(self.values)

    def map(self, function, other):
        others = other.values if isinstance(other, ndarray) else [other] * len(self.values)
        return [function(a, b) for a, b in zip(self.values, others)]

    def __add__(self, other):
        return ndarray(self.map(lambda a, b: a + b, other), self.shape, self.dtype)

    __radd__ = __add__

    def __mul__(self, other):
        return ndarray(self.map(lambda a, b: a * b, other), self.shape, self.dtype)

    __rmul__ = __mul__

    def __truediv__(self, other):
        return ndarray(self.map(lambda a, b: a / b, other), self.shape, self.dtype)

    def __iadd__(self, other):
        self.values[:] = (self + other).values
        return self

    def __imul__(self, other):
        self.values[:] = (self * other).values
        return self


def array(values, dtype):
    if isinstance(values, ndarray):
        return ndarray(values.values, values.shape, dtype)
    if values and isinstance(values[0], list):
        flat = [value for row in values for value in row]
        return ndarray(flat, [len(values), len(values[0])], dtype)
    return ndarray(values, [len(values)], dtype)


def frombuffer(data, kind=None, dtype=None):
    code = CODES[getattr(kind or dtype, "str", None)]
    count = len(data) // struct.calcsize("<" + code)
    return ndarray(struct.unpack("<%d%s" % (count, code), data), [count], kind or dtype)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


def sign(values):
    return ndarray([(value > 0) - (value < 0) for value in values], values.shape, values.dtype)
