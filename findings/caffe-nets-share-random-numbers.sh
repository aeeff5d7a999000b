#!/bin/sh
# The training net and the test nets draw from one random generator. So the weights that a training ends with
# depend on how often it was tested, wherever a layer of the test net draws (here noisy data; Dropout in the
# training net then sees other numbers): test_interval is not a mere matter of display.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 8 dim: 3 } shape { dim: 8 dim: 1 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "gaussian" std: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
for interval in 2 4; do
    cat >solver.prototxt <<SOLVER
net: "net.prototxt" test_iter: 1 test_interval: $interval max_iter: 6 base_lr: 0.01 lr_policy: "fixed"
random_seed: 1 snapshot_prefix: "s$interval" solver_mode: CPU test_initialization: false
SOLVER
    caffe train --solver=solver.prototxt >log$interval 2>&1
done
sha256sum s2_iter_6.caffemodel s4_iter_6.caffemodel
cmp -s s2_iter_6.caffemodel s4_iter_6.caffemodel && fail "the weights do not depend on test_interval"
echo "as found: another test_interval, other weights"
