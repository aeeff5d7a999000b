#!/bin/sh
# `caffe train --snapshot` with other stepvalues than the snapshot was made with: lr_policy "multistep" does not compare
# the iteration with all stepvalues, but goes on from the number of steps that the snapshot holds, and takes at most one
# step an iteration. So a step that was postponed is not taken, and steps that were added are taken one after another.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
# solver PREFIX MAX_ITER STEPVALUES...
solver() {
    echo "train_net: 'net.prototxt' base_lr: 1 lr_policy: 'multistep' gamma: 0.1 display: 1 snapshot_prefix: '$1' max_iter: $2"
    shift 2
    printf 'stepvalue: %s\n' "$@"
    echo 'solver_mode: CPU'
}
lrs() { caffe train "$@" 2>&1 | sed -n 's/.*Iteration \([0-9]*\), lr = /\1 /p' | tr '\n' ';'; }
solver a 4 2 >early.prototxt
solver b 4 100 >late.prototxt
solver c 8 6 >postponed.prototxt
solver d 8 1 2 3 >added.prototxt
early=$(lrs --solver=early.prototxt)
late=$(lrs --solver=late.prototxt)
postponed=$(lrs --solver=postponed.prototxt --snapshot=a_iter_4.solverstate)
added=$(lrs --solver=added.prototxt --snapshot=b_iter_4.solverstate)
echo "stepvalue 2: $early then from its snapshot with stepvalue 6: $postponed"
echo "stepvalue 100: $late then from its snapshot with stepvalues 1, 2, 3: $added"
[ "$early" = "0 1;1 1;2 0.1;3 0.1;" ] || fail "another start"
# One step at 6 would be: 1 up to 5, 0.1 from 6 on.
[ "$postponed" = "4 0.1;5 0.1;6 0.1;7 0.1;" ] || fail "the postponed step is another"
# Three steps have passed at 4: 0.001 from there on.
[ "$added" = "4 0.1;5 0.01;6 0.001;7 0.001;" ] || fail "the added steps are others"
