"""A contender in Caffe's Python: trains nets, or runs single convolutions, with Caffe's own or fast layers.

Its argument is JSON: ``library``, that of the fast layers or null, and ``worker``, the worker's file,
which loads it as for a training.
"""

import importlib.util
import json
import os
import sys
import tempfile

import caffe
import numpy as np
import serving


def begin():
    job = json.loads(sys.argv[1])
    spec = importlib.util.spec_from_file_location("worker", job["worker"])
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    if job["library"]:
        problems = [text for text in worker.check_fast_layers(job["library"])[:2] if text]
        if problems:
            raise RuntimeError(problems[0])
        worker.use_fast_layers(job["library"])
    caffe.set_mode_cpu()
    kernels = worker.openblas_kernels(worker.blas_libraries(worker.mapped_libraries()))
    about = {"version": f"Caffe {caffe.__version__}", "blas": kernels}
    return about, lambda request: Training(request) if "solver" in request else Convolution(request)


def in_file(text, use):
    """What ``use`` makes of a file with a text; Caffe reads nothing else."""
    file, name = tempfile.mkstemp(suffix=".prototxt")
    try:
        with os.fdopen(file, "w") as target:
            target.write(text)
        return use(name)
    finally:
        os.unlink(name)


class Training:
    """A solver whose net has its images and random labels in memory."""

    def __init__(self, request):
        self.solver = in_file(request["solver"], caffe.get_solver)
        net = self.solver.net
        numbers = np.random.RandomState(1)
        images, labels = net.blobs["data"].data, net.blobs["label"].data
        images[...] = numbers.standard_normal(images.shape)
        labels[...] = numbers.randint(request["classes"], size=labels.shape)
        self.losses = request["losses"]
        learnt = [layer for layer in net.layers if layer.type != "BatchNorm"]
        self.about = {"parameters": sum(blob.count for layer in learnt for blob in layer.blobs)}

    def run(self, passes, watch):
        watch.time("iteration", lambda: self.solver.step(passes))
        for name in self.losses:
            value = float(self.solver.net.blobs[name].data)
            if not np.isfinite(value):
                raise RuntimeError(f"{name} is {value}")


class Convolution:
    """A convolution by itself; that of three channels is a net's first: no gradient of its data."""

    def __init__(self, request):
        shape = request["shape"]
        dims = " ".join(f"dim: {dim}" for dim in shape)
        parameter = f"convolution_param {{ {request['fields']} }}"
        backward = "false" if shape[1] == 3 else "true"
        text = f"""
            force_backward: {backward}
            layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
            layer {{ name: "layer" type: "Convolution" bottom: "x" top: "y" {parameter} }}
            layer {{ name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }}
        """
        self.net = in_file(text, lambda name: caffe.Net(name, caffe.TRAIN))
        numbers = np.random.RandomState(1)
        x, y = self.net.blobs["x"], self.net.blobs["y"]
        x.data[...] = numbers.uniform(-1, 1, shape)
        for blob in self.net.params.get("layer", []):
            blob.data[...] = numbers.uniform(-1, 1, blob.data.shape)
        y.diff[...] = numbers.uniform(-1, 1, y.data.shape)
        self.about = {"output": list(y.data.shape)}

    def run(self, passes, watch):
        for _ in range(passes):
            watch.time("forward", lambda: self.net._forward(1, 1))
            watch.time("backward", lambda: self.net._backward(1, 1))


if __name__ == "__main__":
    serving.serve(begin)
