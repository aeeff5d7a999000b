#!/bin/sh
# glog 0.4 (Debian 11's Caffe has it) cuts a message at 30,000 bytes, without a mark. Caffe prints a net as one
# message, so that a deep net in a log is not the whole net, and often no valid prototxt.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

{
    echo 'layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }'
    for n in $(seq 1 400); do
        echo "layer { name: \"a_layer_with_a_long_name_$n\" type: \"Power\" bottom: \"x\" top: \"x\" }"
    done
    echo 'layer { name: "the_end" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" }'
} >net.prototxt
cat >solver.prototxt <<'SOLVER'
train_net: "net.prototxt" max_iter: 1 base_lr: 1 lr_policy: "fixed" snapshot_after_train: false solver_mode: CPU
SOLVER
caffe train --solver=solver.prototxt >log 2>&1
# The message: from the line with "Initializing net from parameters:" to the next line of glog.
awk '/Initializing net from parameters/ { on = 1; print; next } on && /^[IWEF][0-9][0-9][0-9][0-9] / { exit } on' log >message
sed -i '1s/^.*\] //' message
bytes=$(wc -c <message)
echo "the net as it is: $(wc -c <net.prototxt) bytes; the message: $bytes bytes"
grep -q the_end message && fail "the whole net is printed"
[ "$bytes" -gt 29000 ] && [ "$bytes" -le 30001 ] || fail "the message is cut at $bytes bytes"
