#!/bin/sh
# lr_policy "sigmoid" is called a decay in caffe.proto's comment, and in many tutorials. With a positive gamma the
# LR rises from almost 0 to base_lr; only a negative gamma makes it fall.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
cat >solver.prototxt <<'SOLVER'
train_net: "net.prototxt" max_iter: 11 base_lr: 1 lr_policy: "sigmoid" gamma: 1 stepsize: 5 display: 5
snapshot_after_train: false solver_mode: CPU
SOLVER
caffe train --solver=solver.prototxt 2>&1 | grep -o 'Iteration [0-9]*, lr = .*' | tee lrs
# 1 / (1 + exp(-(t - 5))) at 0, 5 and 10
printf 'Iteration 0, lr = 0.00669285\nIteration 5, lr = 0.5\nIteration 10, lr = 0.993307\n' | cmp -s - lrs ||
    fail "the LRs are others"
