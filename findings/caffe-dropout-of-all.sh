#!/bin/sh
# Caffe takes a dropout_ratio of 1, which drops every value, without a word, and each value becomes NaN: those
# that stay are scaled by 1 / (1 - ratio), and dropped ones are 0 times that infinity. The layer's own check of
# the ratio is for debug builds.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
input: "data" input_shape { dim: 1 dim: 1000 }
layer { name: "drop" type: "Dropout" bottom: "data" top: "dropped" dropout_param { dropout_ratio: 1 } }
NET
caffe_python - 2>/dev/null <<'PYTHON' || fail "a dropout_ratio of 1 is refused, or gives numbers"
import caffe, numpy
net = caffe.Net("net.prototxt", caffe.TRAIN)
net.blobs["data"].data[...] = 1
found = net.forward()["dropped"]
print("dropped values that are NaN:", int(numpy.isnan(found).sum()), "of", found.size)
assert numpy.isnan(found).all()
PYTHON
