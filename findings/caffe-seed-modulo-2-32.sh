#!/bin/sh
# random_seed is an int64 in caffe.proto, but the generator takes its low 32 bits: 4294967297 is seed 1.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
for seed in 1 2 4294967297; do
    cat >solver.prototxt <<SOLVER
train_net: "net.prototxt" max_iter: 1 base_lr: 0.01 lr_policy: "fixed" random_seed: $seed
snapshot_prefix: "s$seed" solver_mode: CPU
SOLVER
    caffe train --solver=solver.prototxt >/dev/null 2>&1
done
sha256sum s*_iter_1.caffemodel
cmp -s s1_iter_1.caffemodel s4294967297_iter_1.caffemodel || fail "4294967297 is another seed than 1"
cmp -s s1_iter_1.caffemodel s2_iter_1.caffemodel && fail "the seed has no effect here"
echo "as found: 4294967297 is seed 1"
