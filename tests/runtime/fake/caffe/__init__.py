"""As much of pycaffe as the worker touches, with a solver whose numbers can be worked out by hand.

It also runs on Python 2.7.

The "solver.prototxt" is JSON (see DEFAULTS). Each iteration's loss is the iteration's number, plus
0.25 for each sub-batch before. The gradients are constants. What is done is
written to the log, one line for each event.
"""

import json
import os
import signal
import sys
import time
from collections import OrderedDict

import numpy

from . import _caffe
from . import io as io

__version__ = os.environ.get("FAKE_CAFFE_VERSION", "1.0.0-fake")

DEFAULTS = {
    "iter": 0,
    "iter_size": 1,
    "base_lr": 1.0,
    "weights": {"ip": [[3.0, -4.0], [2.0]]},  # layer: blobs
    "gradients": {"ip": [[1.0, 2.0], [0.5]]},
    "types": {},  # layer: its type
    "shared": {},  # layer: the layer whose blobs it shares
    "test_batches": [],  # for each test net a list of {"scores": ..., "labels": ..., "loss": ...}
    "scores": "s",  # the name of the test nets' scores
    "test_loss_weight": 1.0,
    "seconds": 0.0,  # for an iteration
    "pause_before_first": 0.0,
    "trouble_at": -1,
    "trouble": "",
}


def event(text):
    sys.stderr.write("event: " + text + "\n")
    sys.stderr.flush()


def layer_type_list():
    return ["InnerProduct", "Data", "SoftmaxWithLoss"]


def set_mode_cpu():
    event("mode CPU")


def set_mode_gpu():
    event("mode GPU")


def set_device(number):
    event("device %d" % number)


if __version__ != "1.0":

    def log(text):
        event("log " + text)


class Blob(object):
    def __init__(self, data):
        self.data = numpy.array(data, dtype="<f4")
        self.diff = numpy.array(data, dtype="<f4")

    def shared(self):
        """Another blob with the same memory, as Caffe's shared parameters have it."""
        other = Blob([0.0])
        other.data, other.diff = self.data, self.diff
        return other

    @property
    def shape(self):
        return self.data.shape

    @property
    def count(self):
        count = 1
        for length in self.data.shape:
            count *= length
        return count


def fill(array, values):
    """Overwrite an array in place, with what the fake numpy can do, too."""
    array *= 0.0
    array += numpy.array(values, dtype="<f4")


class Layer(object):
    def __init__(self, kind, blobs):
        self.type = kind
        self.blobs = blobs


class Net(object):
    layer_callback = None

    def __init__(self, name, options):
        self.name = name
        learning = sorted(options["weights"]) + sorted(options["shared"])
        self._layer_names = ["data"] + learning + ["loss"]
        kinds = [options["types"].get(name, "InnerProduct") for name in learning]
        self.blobs = OrderedDict(loss=Blob([0.0]))
        self.blob_loss_weights = {"loss": 1.0}
        self.params = OrderedDict()
        for layer in sorted(options["weights"]):
            self.params[layer] = [Blob(values) for values in options["weights"][layer]]
        for layer, owner in options["shared"].items():
            self.params[layer] = [blob.shared() for blob in self.params[owner]]
        types = ["Data"] + kinds + ["SoftmaxWithLoss"]
        self.layers = [
            Layer(kind, self.params.get(name, [])) for name, kind in zip(self._layer_names, types)
        ]

    # What pycaffe's compiled half has: lists, in which names may repeat.
    @property
    def _blob_names(self):
        return list(self.blobs)

    @property
    def _blobs(self):
        return list(self.blobs.values())

    @property
    def _blob_loss_weights(self):
        return [self.blob_loss_weights[name] for name in self.blobs]

    @property
    def _outputs(self):
        return [list(self.blobs).index("loss")]

    def copy_from(self, path):
        event("%s copies %s" % (self.name, path))

    def share_with(self, other):
        event("%s shares with %s" % (self.name, other.name))

    def _forward(self, first, last):
        event("%s forward %d to %d" % (self.name, first, last))
        for layer in self.layers[first:last + 1]:
            if layer.type == "BatchNorm":  # counts what it sees
                for blob in layer.blobs:
                    fill(blob.data, [float(value) + 1 for value in blob.data])


class TestNet(Net):
    def __init__(self, name, options, batches):
        Net.__init__(self, name, options)
        self.batches = batches
        self.cursor = 0
        self.scores = options["scores"]
        self.blob_loss_weights = {"loss": options["test_loss_weight"], self.scores: 0.0, "y": 0.0}
        self.load(batches[0])

    def load(self, batch):
        scores, labels, loss = Blob(batch["scores"]), Blob(batch["labels"]), Blob([batch["loss"]])
        self.blobs = OrderedDict([(self.scores, scores), ("y", labels), ("loss", loss)])

    def _forward(self, first, last):
        if first == 0:
            batch = self.batches[self.cursor % len(self.batches)]
            self.cursor += 1
            # In the same blobs, as Caffe does it.
            for name, blob in self.blobs.items():
                key = {self.scores: "scores", "y": "labels", "loss": "loss"}[name]
                blob.data = numpy.array([batch[key]] if name == "loss" else batch[key], dtype="<f4")
        Net._forward(self, first, last)


if __version__ != "1.0":

    def set_layer_callback(net, callback):
        net.layer_callback = callback

    Net.after_forward = set_layer_callback


class Solver(_caffe.Solver):
    def __init__(self, options):
        self.options = options
        self.iter = options["iter"]
        self.net = Net("train", options)
        self.test_nets = [
            TestNet("test%d" % i, options, batches) for i, batches in enumerate(options["test_batches"])
        ]
        self._param = _caffe.SolverParameter(options["base_lr"])
        self.callbacks = []

    @property
    def param(self):
        """The solver's own, or a copy of it: then whatever is set on it is set on nothing."""
        return _caffe.SolverParameter(self._param.lr) if __version__ in ("1.0", "copies") else self._param

    def add_callback(self, on_start, on_gradients_ready):
        self.callbacks.append((on_start, on_gradients_ready))

    def step(self, iterations):
        event("step %d" % iterations)
        time.sleep(self.options["pause_before_first"])
        for _ in range(iterations):
            for on_start, _ in self.callbacks:
                on_start()
            if self.iter == self.options["trouble_at"]:
                trouble(self.options["trouble"])
            time.sleep(self.options["seconds"])
            self.forward_backward()
            for _, on_gradients_ready in self.callbacks:
                on_gradients_ready()
            self.apply_update()
            self.iter += 1

    def forward_backward(self):
        for layer, blobs in self.net.params.items():
            for blob, gradient in zip(blobs, self.options["gradients"].get(layer, [])):
                fill(blob.diff, gradient)
        for part in range(self.options["iter_size"]):
            self.net.blobs["loss"].data = numpy.array([self.iter + 0.25 * part], dtype="<f4")
            if self.net.layer_callback:
                for layer in range(len(self.net.layers)):
                    self.net.layer_callback(layer)

    def apply_update(self):
        """Caffe's: the learnable parameters are the owners'; gradients are divided by iter_size."""
        event("update %d with base_lr %g" % (self.iter, self._param.lr))
        for layer, blobs in self.net.params.items():
            if layer not in self.options["shared"]:
                for blob in blobs:
                    step = [self._param.lr * float(d) / self.options["iter_size"] for d in blob.diff]
                    fill(blob.data, [float(w) - s for w, s in zip(blob.data, step)])

    def snapshot(self):
        if self.options["trouble"] == "snapshot":
            trouble("raise")
        weights = [[float(w) for w in blob.data] for blobs in self.net.params.values() for blob in blobs]
        event("snapshot %d %s" % (self.iter, json.dumps(weights)))

    def restore(self, path):
        event("restore " + path)
        self.iter = 1000


def native(value):
    """What was read from JSON with names as pycaffe has them: bytes in Python 2.7."""
    if isinstance(value, dict):
        return dict((native(name), native(item)) for name, item in value.items())
    if isinstance(value, list):
        return [native(item) for item in value]
    return value.encode("utf-8") if isinstance(value, type(u"")) and str is bytes else value


def get_solver(path):
    event("open " + os.path.basename(path))
    with open(path) as file:
        options = native(json.load(file))
    if options.get("trouble") == "open":
        trouble("abort")
    return Solver(dict(DEFAULTS, **options))


FATAL = """F1124 20:55:10.588922 %d math_functions.cu:28] Check failed: error == cudaSuccess (2 vs. 0) full
*** Check failure stack trace: ***
    @     0x7f1b2c5d1f3d  google::LogMessage::Fail()
    @     0x7f1b2c5d3d73  google::LogMessage::SendToLog()
"""


def trouble(kind):
    if kind == "abort":
        sys.stderr.write(FATAL % os.getpid())
        sys.stderr.flush()
        os.abort()
    elif kind == "exit":
        os._exit(7)
    elif kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    elif kind == "hang":
        time.sleep(600)
    elif kind == "print":
        print("this is no message")
        sys.stdout.flush()
    elif kind == "raise":
        raise RuntimeError("layer 'ip' has had enough")
    elif kind == "raise unicode":
        raise ValueError(u"layer 'gr\xf6\xdfe' has had enough")
