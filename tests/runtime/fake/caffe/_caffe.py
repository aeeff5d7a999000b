"""The compiled half of the fake: Caffe 1.0 has no base_lr in Python.

As with Boost.Python's objects, an attribute that is none can be set all the same.
"""

import os

VERSION = os.environ.get("FAKE_CAFFE_VERSION")


class SolverParameter(object):
    def __init__(self, base_lr):
        self.lr = base_lr


if VERSION != "1.0":

    def read(self):
        return self.lr

    def write(self, value):
        self.lr = value

    SolverParameter.base_lr = property(read, write)


if VERSION == "ancient":

    class Solver(object):
        """From before callbacks."""

else:

    class Solver(object):
        def add_callback(self, on_start, on_gradients_ready):
            raise NotImplementedError
