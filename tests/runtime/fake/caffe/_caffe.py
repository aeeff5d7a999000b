"""The compiled half of the fake: in Caffe 1.0, base_lr can be read but not written."""

import os

VERSION = os.environ.get("FAKE_CAFFE_VERSION")


class SolverParameter(object):
    def __init__(self, base_lr):
        self._base_lr = base_lr

    def _get(self):
        return self._base_lr

    def _set(self, value):
        self._base_lr = value

    base_lr = property(_get, None if VERSION == "1.0" else _set)


if VERSION == "ancient":

    class Solver(object):
        """From before callbacks."""

else:

    class Solver(object):
        def add_callback(self, on_start, on_gradients_ready):
            raise NotImplementedError
