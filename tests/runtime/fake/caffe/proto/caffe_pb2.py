"""The descriptor's bytes; the test wrote them."""

import os


class DESCRIPTOR(object):
    with open(os.environ["FAKE_CAFFE_DESCRIPTOR"], "rb") as file:
        serialized_pb = file.read()
