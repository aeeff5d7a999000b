#!/bin/sh
# clip_gradients is compared with the norm of the gradients summed over iter_size batches, before these are
# divided by iter_size: with iter_size 4 a threshold clips as one of a quarter of it would with iter_size 1.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 }
  data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
# The weight begins at 0, the gradient of each batch is -3; an update is 0.1 x the clipped mean.
for size in 1 4; do
    cat >solver.prototxt <<SOLVER
train_net: "net.prototxt" max_iter: 1 base_lr: 0.1 lr_policy: "fixed" iter_size: $size clip_gradients: 6
snapshot_prefix: "s$size" solver_mode: CPU
SOLVER
    caffe train --solver=solver.prototxt >/dev/null 2>&1
done
caffe_python - <<'PYTHON' || fail "the norm is not that of the sum"
from caffe.proto import caffe_pb2
for size, expected in ((1, 0.3), (4, 0.15)):  # 4 x 3 = 12 is clipped to 6, and divided by 4 then
    net = caffe_pb2.NetParameter()
    net.ParseFromString(open("s%d_iter_1.caffemodel" % size, "rb").read())
    (weight,) = [b.data[0] for layer in net.layer for b in layer.blobs]
    print("iter_size %d: the weight after an update is %.4f" % (size, weight))
    assert abs(weight - expected) < 1e-6
PYTHON
