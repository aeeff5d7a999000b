#!/bin/sh
# A solver's train_state chooses layers by a level and stages. caffe train keeps its stages and adds those of --stage,
# but it replaces the level by --level, whose default is 0: a level in the solver file never counts. pycaffe, which
# reads the same file, does as the file says. So one solver trains two different nets.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "deep" type: "Power" bottom: "x" top: "x" include { phase: TRAIN min_level: 1 } }
layer { name: "staged" type: "Power" bottom: "x" top: "x" include { phase: TRAIN stage: "s" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
NET
cat >solver.prototxt <<'SOLVER'
train_net: "net.prototxt" train_state { level: 1 stage: "s" } max_iter: 1 base_lr: 1 lr_policy: "fixed"
snapshot_after_train: false solver_mode: CPU
SOLVER
made() { sed -n 's/.*Creating Layer //p' "$1" | sort -u | tr '\n' ' '; }
caffe train --solver=solver.prototxt >train 2>&1
caffe_python -c 'import caffe; caffe.SGDSolver("solver.prototxt")' >python 2>&1
echo "caffe train: $(made train)"
echo "pycaffe:     $(made python)"
[ "$(made train)" = "d ip loss staged " ] || fail "caffe train makes other layers"
[ "$(made python)" = "d deep ip loss staged " ] || fail "pycaffe makes other layers"
