#!/bin/sh
# With average_loss > 1 Caffe keeps a running mean by adding the difference of the newest and the oldest loss.
# One infinite loss makes it inf, then (inf - inf) NaN, and it never recovers, although every later loss is finite.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

mkdir python
cat >python/spike.py <<'PYTHON'
import caffe


class Spike(caffe.Layer):
    """A loss of 1, and of infinity in the third pass."""

    def setup(self, bottom, top):
        self.passes = 0

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.passes += 1
        top[0].data[0] = float("inf") if self.passes == 3 else 1.0

    def backward(self, top, propagate_down, bottom):
        pass
PYTHON
cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 1 } } }
layer { name: "loss" type: "Python" bottom: "x" top: "loss" loss_weight: 1
  python_param { module: "spike" layer: "Spike" } }
NET
cat >solver.prototxt <<'SOLVER'
train_net: "net.prototxt" max_iter: 12 base_lr: 0.01 lr_policy: "fixed" average_loss: 2 display: 1
snapshot_after_train: false solver_mode: CPU
SOLVER
PYTHONPATH="$ROOT/usr/lib/python3/dist-packages:$FOLDER/python" caffe train --solver=solver.prototxt >log 2>&1
grep -o 'Iteration [0-9]*.*, loss = .*' log
grep -q 'Iteration 11 .*, loss = -\{0,1\}nan' log || fail "the smoothed loss of iteration 11 is not NaN"
grep -q 'Train net output #0: loss = 1 ' log || fail "the loss itself is not finite again"
