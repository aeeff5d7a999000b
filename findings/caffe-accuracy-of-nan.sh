#!/bin/sh
# Caffe's Accuracy layer counts a record whose scores are all NaN as right: a net that has diverged shows an
# accuracy of 1. A class counts as better only where its score is greater or equal, which NaN never is.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
input: "scores" input_shape { dim: 4 dim: 3 } input: "label" input_shape { dim: 4 }
layer { name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy" }
NET
caffe_python - 2>/dev/null <<'PYTHON' || fail "NaN scores do not count as right"
import caffe, numpy
net = caffe.Net("net.prototxt", caffe.TEST)
net.blobs["label"].data[...] = [0, 1, 2, 0]
net.blobs["scores"].data[...] = numpy.nan
found = float(net.forward()["accuracy"])
print("accuracy of NaN scores:", found)
assert found == 1.0
PYTHON
