"""The description of a Caffe that comes with the project."""

from __future__ import annotations

import dataclasses
import gzip

from google.protobuf import descriptor_pb2

from lrbench_caffe.runtime.known import FILE, description, known_caffe
from lrbench_caffe.runtime.replies import CaffeInfo


def test_it_knows_layers_and_messages():
    info = known_caffe()
    assert info.caffe == "1.0.0" and info.writable_base_lr
    assert {"Convolution", "InnerProduct", "SoftmaxWithLoss", "Python", "Swish"} <= set(info.layers)
    proto = descriptor_pb2.FileDescriptorProto.FromString(info.descriptor)
    assert proto.package == "caffe"
    (solver,) = (m for m in proto.message_type if m.name == "SolverParameter")
    assert {"base_lr", "weights"} <= {field.name for field in solver.field}


def test_it_says_nothing_of_the_machine_that_it_was_made_on():
    known = known_caffe()
    here = dataclasses.replace(
        known, python="3.9.2", executable="/opt/python", path="/opt/caffe", cuda=True, gpus=2,
        blas=["/usr/lib/libopenblas.so.0"], files=["/opt/caffe/_caffe.so"], blas_kernels="Haswell",
    )  # fmt: skip
    # Another zlib may write other bytes for the same content.
    assert gzip.decompress(description(here)) == gzip.decompress(FILE.read_bytes())
    assert (known.executable, known.path, known.files, known.blas) == ("", "", [], [])


def test_it_is_of_the_caffe_that_setup_installs(caffe_info: CaffeInfo):
    if caffe_info.caffe == known_caffe().caffe and "Swish" in caffe_info.layers:  # of August 2018
        assert gzip.decompress(description(caffe_info)) == gzip.decompress(FILE.read_bytes())
