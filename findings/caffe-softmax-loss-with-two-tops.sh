#!/bin/sh
# SoftmaxWithLoss is documented to have an optional second top, the probabilities. In the Caffe of August 2018 a
# net that asks for it is refused, whether it gives no loss_weight ("2 vs. 1": the layer gives itself one weight)
# or two ("1 vs. 2": the softmax inside inherits both).
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

for weights in "" "loss_weight: 1 loss_weight: 0"; do
    cat >net.prototxt <<NET
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 2 } shape { dim: 1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "loss" top: "prob" $weights }
NET
    cat >solver.prototxt <<'SOLVER'
train_net: "net.prototxt" max_iter: 1 base_lr: 1 lr_policy: "fixed" snapshot_after_train: false solver_mode: CPU
SOLVER
    caffe train --solver=solver.prototxt >log 2>&1 && fail "a second top is taken"
    grep -o 'top.size() == num_loss_weights.*' log || fail "it is refused for another reason"
done
