"""Runs in Caffe's own Python: test nets of fast solvers against those of Caffe's own, of random layers.

compare_tests.py WORKER LIBRARY NETS SEED THREADS   prints the number of nets, how many blobs were
                                                    compared, and the worst difference of one

Both solvers' nets have the same weights, which change between test passes in all the ways that there
are: by training, a snapshot, a file of weights, by hand. All blobs of the nets are compared, and so
no output of layers that are computed at once is missing. A second pass over the same images must
have the same bits.
"""

import os
import sys
import tempfile

import caffe
import compare
import numpy as np
from compare import Draw, worker

SHIFTS = 'bias_filler { type: "gaussian" std: 0.3 }'
INPUT_NAMES = ("data", "target")
INPUTS = """
layer { name: "%(name)s" type: "DummyData" top: "%(name)s" include { phase: TRAIN }
    dummy_data_param { shape { %(dims)s } data_filler { type: "gaussian" } } }
layer { name: "%(name)s" type: "Input" top: "%(name)s" include { phase: TEST }
    input_param { shape { %(dims)s } } }
"""
SOLVER = """
train_net_param { %s } test_net_param { %s } test_iter: 1 test_interval: 1000 test_initialization: false
base_lr: 0.001 momentum: 0.9 clip_gradients: 1 lr_policy: "fixed" max_iter: 100 random_seed: %d
solver_mode: CPU snapshot_after_train: false snapshot_prefix: "%s" debug_info: %s
"""


class RandomNet:
    """A net of random layers, most of them one after the other and many in place."""

    def __init__(self, draw):
        self.draw, self.layers, self.blob, self.read = draw, [], "data", set()
        self.images, self.channels = draw(1, 2, 5, 17), draw.within(1, 6)
        self.size = [draw.within(9, 20), draw(9, 12, 16, 17, 33)]
        dims = [self.images, self.channels, *self.size]
        draw(self.convolution, self.convolution, self.normalize, self.pool)()
        for _ in range(draw.within(1, 3)):
            draw(self.convolution, self.convolution, self.block, self.block, self.pool, self.norm)()
        self.head()
        inputs = [("data", dims), ("target", [self.images, 5])]
        self.text = "".join(
            INPUTS % {"name": name, "dims": " ".join("dim: %d" % size for size in shape)}
            for name, shape in inputs
        ) + "\n".join(self.layers)

    def add(self, kind, fields="", bottoms=None, in_place=False):
        """A layer; its output is the last blob from now on."""
        bottoms = bottoms or [self.blob]
        name = "%s%d" % (kind, len(self.layers))
        self.blob = bottoms[0] if in_place and bottoms[0] not in self.read else name
        text = " ".join('bottom: "%s"' % bottom for bottom in bottoms)
        self.layers.append(
            'layer { name: "%s" type: "%s" %s top: "%s" %s }'
            % (name, kind, text, self.blob, fields)
        )

    def mostly(self):
        return self.draw(True, True, True, True, False)

    def maybe_read(self):
        """Another layer may read the last blob as it is now."""
        if not self.mostly():
            blob = self.blob
            self.add("Reduction", "reduction_param { operation: ASUM }")
            self.blob = blob
            self.read.add(blob)  # what is read by two layers cannot be changed in place any more

    def convolution(self, outputs=None):
        draw = self.draw
        group = draw(1, 1, 1, self.channels if self.channels <= 12 else 1)
        kernel, stride = (3, 1) if outputs else (draw(1, 3, 3, 5), draw(1, 1, 2))
        outputs = outputs or group * draw(draw.within(1, max(1, 14 // group)), 24 // group)
        fields = "num_output: %d group: %d kernel_size: %d pad: %d stride: %d bias_term: %s" % (
            outputs, group, kernel, kernel // 2, stride, draw("true", "false")
        )  # fmt: skip
        fields += ' weight_filler { type: "msra" } ' + SHIFTS
        self.add("Convolution", "convolution_param { %s }" % fields)
        self.channels, self.size = outputs, [(size - 1) // stride + 1 for size in self.size]
        self.maybe_read()
        self.normalize()

    def normalize(self):
        draw = self.draw
        usual = ["BatchNorm", "Scale", "ReLU"]
        for kind in draw(
            usual, usual, usual[:2], usual[:1], usual[1:], usual[2:], [], ["Scale", *usual]
        ):
            self.add(kind, self.fields_of(kind), in_place=self.mostly())
            self.maybe_read()

    def fields_of(self, kind):
        draw = self.draw
        if kind == "BatchNorm":
            other = "eps: 0.01 moving_average_fraction: 0.9"
            return "batch_norm_param { %s }" % draw("", "", other, "use_global_stats: false")
        if kind == "Scale":
            factors = 'filler { type: "uniform" min: 0.5 max: 1.5 }'
            return "scale_param { bias_term: %s axis: %d %s %s }" % (
                draw("true", "true", "false"), draw(1, 1, 1, 2), factors, SHIFTS
            )  # fmt: skip
        return draw("", "", "", "relu_param { negative_slope: 0.1 }")

    def block(self):
        shortcut = self.blob
        self.convolution(self.channels)
        fields = self.draw("", "", "eltwise_param { coeff: 1 coeff: -1 }")
        self.add("Eltwise", fields, [shortcut, self.blob])
        self.maybe_relu()

    def pool(self):
        if min(self.size) < 3:
            return
        method, stride = self.draw("MAX", "MAX", "AVE"), self.draw(1, 2)
        self.add(
            "Pooling", "pooling_param { pool: %s kernel_size: 3 stride: %d }" % (method, stride)
        )
        self.size = [-(-(size - 3) // stride) + 1 for size in self.size]
        self.maybe_relu()

    def maybe_relu(self):
        if self.mostly():
            self.add("ReLU", in_place=self.mostly())
        self.maybe_read()

    def norm(self):
        where = self.draw("norm_region: WITHIN_CHANNEL", "")
        self.add("LRN", "lrn_param { local_size: 3 alpha: 0.05 %s }" % where)

    def head(self):
        self.add(
            "InnerProduct",
            'inner_product_param { num_output: 5 weight_filler { type: "xavier" } %s }' % SHIFTS,
        )
        for kind in self.draw([], ["ReLU"], ["BatchNorm", "ReLU"], ["BatchNorm"]):
            self.add(kind, in_place=True)
        self.add("EuclideanLoss", bottoms=[self.blob, "target"])


class Pair:
    """A stock solver and a fast one with the same nets and weights."""

    def __init__(self, draw, folder):
        self.draw, self.folder = draw, folder
        self.net = RandomNet(draw)
        text = SOLVER % (
            self.net.text, self.net.text, draw.within(0, 999), os.path.join(folder, "state"),
            draw("false", "false", "false", "true"),
        )  # fmt: skip
        file = os.path.join(folder, "solver.prototxt")
        with open(file, "w") as target:
            target.write(text)
        compare.LIBRARY.lrbench_use_convolution(draw.within(0, 4))  # for all that is planned later
        self.solvers = []
        for fast in (False, True):
            compare.use(fast)
            self.solvers.append(caffe.get_solver(file))
        self.numbers = np.random.RandomState(draw.within(0, 2**31))
        self.share()

    def train(self):
        for solver in self.solvers:
            solver.step(2)
        self.same_weights()

    def same_weights(self):
        stock, fast = (solver.net.params for solver in self.solvers)
        for name, blobs in stock.items():
            for blob, other in zip(blobs, fast[name]):
                other.data[...] = blob.data

    def restore(self):
        """The weights of a snapshot, after others."""
        self.solvers[0].snapshot()
        state = os.path.join(self.folder, "state_iter_%d.solverstate" % self.solvers[0].iter)
        for solver in self.solvers:
            solver.step(1)
            solver.restore(state)

    def load(self):
        """A file's weights into the test nets, whose weights are those of the training nets."""
        file = os.path.join(self.folder, "weights.caffemodel")
        self.solvers[0].net.save(file)
        self.by_hand(all_of_them=True)
        for solver in self.solvers:
            solver.test_nets[0].copy_from(file)

    def by_hand(self, all_of_them=False):
        """One number of a random layer, or many."""
        names = list(self.solvers[0].net.params)
        for name in names if all_of_them else [self.draw(*names)]:
            blob = self.numbers.randint(len(self.solvers[0].net.params[name]))
            place = self.numbers.randint(self.solvers[0].net.params[name][blob].count)
            factor = self.numbers.uniform(0.5, 2)
            for solver in self.solvers:
                solver.net.params[name][blob].data.flat[place] *= factor

    def share(self):
        for solver in self.solvers:
            solver.test_nets[0].share_with(solver.net)

    def reshape(self):
        images = self.draw(1, 3, 18)
        for solver in self.solvers:
            net = solver.test_nets[0]
            for name in INPUT_NAMES:
                net.blobs[name].reshape(images, *net.blobs[name].shape[1:])
            net.reshape()

    def compare(self):
        """A test pass of both; returns how many blobs were compared, and the worst difference."""
        stock, fast = (solver.test_nets[0] for solver in self.solvers)
        last = len(stock.layers) - 1
        images = {name: self.numbers.normal(size=stock.blobs[name].shape) for name in INPUT_NAMES}
        self.forward(stock, images)
        blobs = self.forward(fast, images)
        found = self.differences(stock, fast)
        if "use_global_stats: false" not in self.net.text:  # statistics that change in a test pass
            again = self.forward(fast, images)
            for name, values in blobs.items():
                assert np.array_equal(values, again[name]), (name, self.net.text)
        # A part of the net, from the same blobs on: where a leader did not run, its followers do.
        for name, blob in stock.blobs.items():
            fast.blobs[name].data[...] = blob.data
        begin = self.draw.within(1, last)
        for net in (stock, fast):
            net._forward(begin, last)
        self.differences(stock, fast)
        return found

    @staticmethod
    def forward(net, images):
        """A copy of all blobs after a pass."""
        for name, values in images.items():
            net.blobs[name].data[...] = values
        net._forward(0, len(net.layers) - 1)
        return {name: blob.data.copy() for name, blob in net.blobs.items()}

    def differences(self, stock, fast):
        worst = 0.0
        for name, blob in stock.blobs.items():
            largest = max(np.abs(blob.data).max(), 1e-3)
            difference = np.abs(blob.data - fast.blobs[name].data).max() / largest
            assert difference <= 1e-4, (name, difference, self.net.text)
            worst = max(worst, difference)
        return len(stock.blobs), worst


def compare_nets(number, seed):
    draw, blobs, worst = Draw(seed), 0, 0.0
    for _ in range(number):
        with tempfile.TemporaryDirectory() as folder:
            pair = Pair(draw, folder)
            changes = [pair.train, pair.restore, pair.load, pair.by_hand, pair.share, pair.reshape]
            pair.train()
            for change in [pair.share] + [draw(*changes) for _ in range(3)]:
                change()
                count, difference = pair.compare()
                blobs, worst = blobs + count, max(worst, difference)
    print(number, blobs, worst)


if __name__ == "__main__":
    compare.LIBRARY = worker.use_fast_layers(sys.argv[2], int(sys.argv[5]))
    compare_nets(int(sys.argv[3]), int(sys.argv[4]))
