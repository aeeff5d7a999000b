"""Runs in Caffe's own Python: fast layers against Caffe's own, on nets of one layer with random parameters.

compare.py WORKER LIBRARY layers TYPE NETS SEED    prints the number of nets and the worst difference
compare.py WORKER LIBRARY threads TYPE NETS SEED   the same with two threads
compare.py WORKER LIBRARY chosen TYPE NETS SEED    the same, with the kernels that seem fastest
compare.py WORKER LIBRARY empty                    passes batches without images; prints 0
compare.py WORKER LIBRARY gradients NETS SEED      prints the worst difference from numerical gradients
compare.py WORKER LIBRARY solvers NUMBER SEED      trains small nets by random solvers, fast and stock; prints
                                                   the number, the median and the largest of their
                                                   differences
compare.py WORKER LIBRARY updates NUMBER SEED      the same for a net of Caffe's layers: the update alone
compare.py WORKER LIBRARY memory SOLVER N          prints how much memory N iterations add, in KB
"""

import importlib.util
import os
import random
import sys
import tempfile

import caffe
import numpy as np

spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

EXACT = ("Pooling", "ReLU", "Eltwise")


def use(fast):
    LIBRARY.lrbench_use_layers(1 if fast else 0)


def conv(draw):
    group = draw(1, 1, 1, 2, 3)
    kernel = draw((3, 3), (5, 5), (draw(1, 2, 3, 5, 7), draw(1, 2, 3, 5, 7)))
    shape = draw.shape(channels=group * draw.within(1, 12))
    fields = "num_output: %d group: %d bias_term: %s kernel_h: %d kernel_w: %d stride_h: %d stride_w: %d "
    fields += "pad_h: %d pad_w: %d "
    numbers = (group * draw.within(1, 20), group, draw("true", "false"), *kernel)
    strides = draw((1, 1), (draw.within(1, 3), draw.within(1, 3)))
    numbers += (*strides, draw.within(0, 3), draw.within(0, 3))
    dilation = draw("", "", "", "dilation: 2", "dilation: 1 dilation: 3")
    return [shape], "convolution_param { %s %s }" % (fields % numbers, dilation)


def depthwise(draw):
    """A group for each input channel."""
    shape = draw.shape(channels=draw.within(2, 40))
    kernel = draw((3, 3), (3, 3), (5, 5), (draw.within(1, 7), draw.within(1, 7)))
    strides = draw((1, 1), (2, 2), (draw.within(1, 3), draw.within(1, 3)))
    fields = "num_output: %d group: %d bias_term: %s kernel_h: %d kernel_w: %d stride_h: %d stride_w: %d "
    fields += "pad_h: %d pad_w: %d "
    numbers = (shape[1] * draw(1, 1, 2, 3), shape[1], draw("true", "false"), *kernel, *strides)
    numbers += (draw.within(0, 3), draw.within(0, 3))
    dilation = draw("", "", "", "dilation: 2", "dilation: 1 dilation: 3")
    return [shape], "convolution_param { %s %s }" % (fields % numbers, dilation)


def pooling(draw):
    kernel = (draw.within(1, 5), draw.within(1, 5))
    pads = tuple(draw(0, 0, draw.within(0, k - 1)) for k in kernel)
    window = "kernel_h: %d kernel_w: %d pad_h: %d pad_w: %d " % (*kernel, *pads)
    window += "stride_h: %d stride_w: %d" % (draw(1, 2, 2, 3, 6), draw(1, 2, 2, 3, 6))
    window = draw(window, window, window, window, "global_pooling: true")
    rounding = draw("", "round_mode: FLOOR")
    method, top = draw(("MAX", ""), ("MAX", 'top: "mask" '), ("AVE", ""), ("AVE", ""))
    return [draw.shape()], top + "pooling_param { pool: %s %s %s }" % (method, window, rounding)


def lrn(draw):
    numbers = (draw(1, 3, 5, 7), draw(1e-4, 0.05, 1), draw(0.75, 0.75, 0.5, 1))
    fields = "local_size: %d alpha: %g beta: %g " % numbers
    fields += draw("norm_region: WITHIN_CHANNEL", "norm_region: ACROSS_CHANNELS k: 2", "")
    return [draw.shape()], "lrn_param { %s }" % fields


def inner_product(draw):
    fields = "num_output: %d bias_term: %s axis: %d transpose: %s"
    transpose = draw("false", "false", "false", "true")
    numbers = (draw.within(1, 70), draw("true", "false"), draw(1, 1, 1, 2), transpose)
    return [draw.shape()], "inner_product_param { %s }" % (fields % numbers)


def relu(draw):
    return [draw.shape()], draw("", "relu_param { negative_slope: 0.1 }")


def batch_norm(draw):
    return [draw(draw.shape(), draw.shape(), draw.shape()[:2])], draw(
        "", "batch_norm_param { eps: 0.01 moving_average_fraction: 0.9 }"
    )


def scale(draw):
    return [draw.shape()], "scale_param { bias_term: %s axis: %d num_axes: %d }" % (
        draw("true", "false"), draw(1, 1, 1, 0, 2), draw(1, 1, 1, 2)
    )  # fmt: skip


def eltwise(draw):
    count, shape = draw(2, 2, 3), draw.shape()
    coefficients = "".join("coeff: %g " % draw(1, -1, 0.5) for _ in range(count))
    fields = draw("", "", "operation: MAX", "operation: PROD", "operation: SUM " + coefficients)
    return [shape] * count, "eltwise_param { %s }" % fields


MAKERS = {
    "Convolution": conv,
    "Depthwise": depthwise,
    "Pooling": pooling,
    "LRN": lrn,
    "InnerProduct": inner_product,
    "ReLU": relu,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "Eltwise": eltwise,
}
TYPES = {"Depthwise": "Convolution"}  # of the others, the name
IN_PLACE = ("ReLU", "BatchNorm", "Scale")


class Draw(random.Random):
    """Random parameters."""

    def __call__(self, *choices):
        return self.choice(choices)

    def within(self, low, high):
        return self.randint(low, high)

    def shape(self, channels=None):
        channels = channels or self.within(1, 12)
        images, width = self(1, 2, 5, 8, 9, 17), self(self.within(1, 20), 8, 16, 17, 33)
        return (images, channels, self.within(1, 20), width)


def net_text(kind, shapes, fields, in_place):
    text = "force_backward: true "
    for i, shape in enumerate(shapes):
        dims = " ".join("dim: %d" % dim for dim in shape)
        text += 'layer { name: "x%d" type: "Input" top: "x%d" input_param { shape { %s } } }\n' % (
            i,
            i,
            dims,
        )
    bottoms = " ".join('bottom: "x%d"' % i for i in range(len(shapes)))
    top = "x0" if in_place else "y"
    return text + 'layer { name: "layer" type: "%s" %s top: "%s" %s }' % (
        TYPES.get(kind, kind),
        bottoms,
        top,
        fields,
    ), top


def possible(kind, shapes, fields):
    """Whether Caffe takes this: it ends the process where it does not."""
    number = lambda name: int((fields + " %s: 0" % name).split("%s: " % name)[1].split()[0])  # noqa: E731
    if "global_pooling" in fields or kind not in ("Convolution", "Depthwise", "Pooling"):
        return not (kind == "Scale" and number("axis") + number("num_axes") > 4)
    reach = {"": (1, 1), "dilation: 2 }": (2, 2), "dilation: 1 dilation: 3 }": (1, 3)}
    dilation = next((v for k, v in reach.items() if k and fields.endswith(k)), (1, 1))
    for axis, factor in zip("hw", dilation):
        size = shapes[0][2 if axis == "h" else 3] + 2 * number("pad_" + axis)
        if size < factor * (number("kernel_" + axis) - 1) + 1:
            return False
        # Caffe's max pooling writes outside its memory where a window begins behind the image.
        kernel, stride = number("kernel_" + axis), number("stride_" + axis)
        if kind == "Pooling" and -(-(size - kernel) // stride) * stride >= size - number(
            "pad_" + axis
        ):
            return False
    return True


def pass_empty_batch():
    """A batch without images, as Caffe's own convolution takes it."""
    text, _ = net_text(
        "Convolution", [(2, 3, 8, 8)], "convolution_param { num_output: 4 kernel_size: 3 }", False
    )
    net = load(text, caffe.TRAIN, True)
    for images in (0, 2, 0):
        net.blobs["x0"].reshape(images, 3, 8, 8)
        net.reshape()
        net._forward(0, 1)
        net._backward(1, 0)
    print(net.blobs["y"].count)


def load(text, phase, fast):
    use(fast)
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        return caffe.Net(file.name, phase)


def run(net, top, numbers, passes=2):
    """Fills everything with numbers, goes forward and backward; returns all that came out."""
    results = {}
    if net.layers[-1].type != "BatchNorm":
        for blob in net.params.get("layer", []):
            blob.data[...] = numbers.uniform(-1, 1, blob.data.shape)
    for _ in range(passes):
        for name, blob in net.blobs.items():
            if name.startswith("x"):
                blob.data[...] = numbers.uniform(-1, 1, blob.data.shape)
        for blob in net.params.get("layer", []):
            blob.diff[...] = numbers.uniform(-1, 1, blob.diff.shape)
        last = len(net.layers) - 1
        net._forward(0, last)
        for name in (top, "mask"):
            if name in net.blobs:
                results["output" if name == top else name] = net.blobs[name].data.copy()
        net.blobs[top].diff[...] = numbers.uniform(-1, 1, net.blobs[top].diff.shape)
        net._backward(last, 0)
    for name, blob in net.blobs.items():
        if name.startswith("x"):
            results["gradient of " + name] = blob.diff.copy()
    for i, blob in enumerate(net.params.get("layer", [])):
        results["parameter %d" % i] = blob.data.copy()
        results["gradient of parameter %d" % i] = blob.diff.copy()
    return results


def use_any_kernels(draw):
    """The next convolutions work by direct ones, Winograd's or products, whatever is faster."""
    LIBRARY.lrbench_use_convolution(draw.within(1, 4))


def compare_layers(kind, nets, seed, chosen=False):
    draw, worst, done = Draw(seed), 0.0, 0
    while done < nets:
        if kind == "Convolution" and not chosen:
            use_any_kernels(draw)
        shapes, fields = MAKERS[kind](draw)
        in_place = kind in IN_PLACE and draw(True, False)
        phase = draw(caffe.TRAIN, caffe.TRAIN, caffe.TEST)
        if not possible(kind, shapes, fields):
            continue
        text, top = net_text(kind, shapes, fields, in_place)
        number = draw.within(0, 2**31)
        should, found = (
            run(load(text, phase, fast), top, np.random.RandomState(number))
            for fast in (False, True)
        )
        for name, value in should.items():
            if kind in EXACT:
                assert np.array_equal(value, found[name]), (name, text)
            largest = np.abs(value).max()
            if name.startswith("gradient of parameter"):
                # A single sum can be near zero by chance: then by what sums of so many random terms
                # are like.
                largest = max(largest, 0.1 * np.sqrt(should["output"].size / value.size))
            elif kind == "BatchNorm" and name == "parameter 0":  # likewise a mean of so many terms
                largest = max(largest, 0.1 * np.sqrt(value.size / should["output"].size))
            d = np.abs(value - found[name]).max() / max(largest, 1e-20)
            # One element in a channel has no variance: its gradient is rounding alone.
            degenerate = kind == "BatchNorm" and np.prod(shapes[0]) / shapes[0][1] < 4
            assert d <= 2e-5 or degenerate, (name, d, text)
            worst = worst if degenerate else max(worst, d)
        done += 1
    print(done, worst)


def check_gradients(nets, seed):
    """The derivative along a random direction, by differences, against the gradient's."""
    draw, worst = Draw(seed), 0.0
    kinds = ("Convolution", "LRN", "BatchNorm", "Scale", "Depthwise")
    done = 0
    while done < nets:
        kind = kinds[done % len(kinds)]
        use_any_kernels(draw)
        shapes, fields = MAKERS[kind](draw)
        if len(shapes[0]) != 4:  # behind an InnerProduct, where the layers are Caffe's own
            continue
        shapes = [(2, shapes[0][1], min(shapes[0][2], 6) + 1, min(shapes[0][3], 6) + 2)]
        if not possible(kind, shapes, fields):
            continue
        text, top = net_text(kind, shapes, fields, False)
        net = load(text, caffe.TRAIN, True)
        numbers = np.random.RandomState(done)
        run(net, top, numbers, 1)
        x = net.blobs["x0"]
        start, gradient, factor = (
            x.data.copy(),
            x.diff.copy().astype(float),
            net.blobs[top].diff.copy(),
        )
        direction = numbers.uniform(-1, 1, x.data.shape)
        step, values = 5e-3, []
        for sign in (1, -1):
            x.data[...] = start + sign * step * direction
            net._forward(0, len(net.layers) - 1)
            values.append(float((net.blobs[top].data.astype(float) * factor).sum()))
        numerical, analytical = (
            (values[0] - values[1]) / (2 * step),
            float((gradient * direction).sum()),
        )
        scale = np.sqrt((gradient**2).sum()) + 1e-3
        worst = max(worst, abs(numerical - analytical) / scale)
        assert worst < 2e-2, (numerical, analytical, scale, text)
        done += 1
    print(done, worst)


BLOCK_NET = """
layer {
    name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param {
        shape { dim: %d dim: 3 dim: %d dim: %d } data_filler { type: "gaussian" }
        shape { dim: %d } data_filler { type: "uniform" min: 0 max: 2.99 }
    }
}
layer { name: "whole" type: "Silence" bottom: "label" }
layer {
    name: "conv1" type: "Convolution" bottom: "data" top: "conv1" %s
    convolution_param { num_output: %d kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } }
}
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: %s } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" %s }
layer {
    name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
    convolution_param { num_output: %d kernel_size: 5 pad: 2 bias_term: false weight_filler { type: "msra" } }
}
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "conv2" }
layer { name: "scale2" type: "Scale" bottom: "conv2" top: "conv2" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "conv2" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "%s" }
%s
layer {
    name: "pool" type: "Pooling" bottom: "%s" top: "pool"
    pooling_param { pool: AVE kernel_size: 3 stride: 2 }
}
layer {
    name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
    param { lr_mult: 2 decay_mult: 0.5 } param { lr_mult: 0.5 decay_mult: 0 }
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "target" type: "DummyData" top: "target"
    dummy_data_param { shape { dim: %d dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


# What follows a convolution in a further block.
NORM = """
layer { name: "bn_%(name)s" type: "BatchNorm" bottom: "%(name)s" top: "%(name)s" }
layer {
    name: "scale_%(name)s" type: "Scale" bottom: "%(name)s" top: "%(name)s"
    scale_param { bias_term: true }
}
"""
CONV = """
layer {
    name: "%(name)s" type: "Convolution" bottom: "%(bottom)s" top: "%(name)s"
    convolution_param {
        num_output: %(channels)d kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" }
    }
}
"""


def further_block(draw, bottom, channels):
    """A second block, whose shortcut is a split blob, one that is reshaped before that, or a convolution."""
    shortcut, text = bottom, ""
    kind = draw("split", "reshaped", "projection", "loss")
    if kind == "reshaped":  # its gradient is in the memory of the reshaped one's, from the start
        text += (
            'layer { name: "r" type: "Reshape" bottom: "%s" top: "r" reshape_param { axis: 1 num_axes: 0 } }'
            % bottom
        )
        bottom = shortcut = "r"
    elif kind == "projection":
        text += CONV % {"name": "side", "bottom": bottom, "channels": channels}
        text += draw("", NORM % {"name": "side"})
        shortcut = "side"
    elif kind == "loss":  # one of the split blob's gradients is written once
        text += (
            'layer { name: "mean" type: "Reduction" bottom: "%s" top: "mean" loss_weight: 0.01 }'
            % bottom
        )
        text += 'layer { name: "idle" type: "Silence" bottom: "mean" }'
    text += CONV % {"name": "conv3", "bottom": bottom, "channels": channels}
    text += NORM % {"name": "conv3"}
    pair = draw(("conv3", shortcut), (shortcut, "conv3"))
    text += 'layer { name: "sum2" type: "Eltwise" bottom: "%s" bottom: "%s" top: "sum2" }' % pair
    return text + draw(
        "", 'layer { name: "relu3" type: "ReLU" bottom: "sum2" top: "sum2" }'
    ), "sum2"


def block_net(draw):
    """A residual block whose layers are fused, or are not because one is not in place or has a slope."""
    images, channels, height, width = draw.shape()
    two_blocks = draw(False, True)
    # In a larger net more values are near a ReLU's zero: there each must count for less.
    images, height, width = max(images, 16 if two_blocks else 2), height + 3, width + 3
    last = draw("sum", "sum", "behind")
    frozen = draw("", "", "param { lr_mult: 0 }")
    slope = draw("", "", "relu_param { negative_slope: 0.1 }")
    numbers = (
        images,
        height,
        width,
        images,
        frozen,
        channels,
        draw("true", "false"),
        slope,
        channels,
    )
    further, pooled = further_block(draw, last, channels) if two_blocks else ("", last)
    return BLOCK_NET % (*numbers, last, further, pooled, images)


PLAIN_NET = """
layer {
    name: "data" type: "DummyData" top: "data" top: "target"
    dummy_data_param {
        shape { dim: 4 dim: %d } data_filler { type: "gaussian" }
        shape { dim: 4 dim: 3 } data_filler { type: "gaussian" }
    }
}
layer {
    name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    param { lr_mult: 2 decay_mult: 0.5 } param { lr_mult: 0.5 decay_mult: 0 }
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { type: "gaussian" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


def solver_text(draw, net):
    fields = 'type: "%s" momentum: %g ' % (draw("SGD", "Nesterov"), draw(0, 0.9, 0.5))
    decay = draw(0, 0.0005, 0.01)
    # Caffe takes any text where there is no weight decay.
    fields += 'weight_decay: %g regularization_type: "%s" ' % (
        decay,
        draw("L1", "L2") if decay else "none",
    )
    fields += "base_lr: 0.001 iter_size: %d " % draw(1, 1, 2, 3)
    fields += draw("", "clip_gradients: 0.5") + draw("", " debug_info: true")
    fields += (
        ' lr_policy: "step" gamma: 0.5 stepsize: 2 max_iter: 100 random_seed: %d '
        % draw.within(0, 999)
    )
    return fields + "solver_mode: CPU snapshot_after_train: false net_param { %s }" % net


def trained(text, fast, folder):
    """Parameters, and the momentum as the solver's snapshot has it, after five updates."""
    use(fast)
    prefix = os.path.join(folder, "fast" if fast else "stock")
    with open(prefix + ".prototxt", "w") as file:
        file.write('snapshot_prefix: "%s" %s' % (prefix, text))
    solver = caffe.get_solver(prefix + ".prototxt")
    solver.step(5)
    solver.snapshot()
    state = caffe.proto.caffe_pb2.SolverState()
    with open(prefix + "_iter_5.solverstate", "rb") as file:
        state.ParseFromString(file.read())
    values = {"history %d" % i: np.array(blob.data) for i, blob in enumerate(state.history)}
    for name, blobs in solver.net.params.items():
        for i, blob in enumerate(blobs):
            values["%s %d" % (name, i)] = blob.data.copy().ravel()
    return values


def compare_solvers(number, seed, make_net):
    draw, all_worst = Draw(seed), []
    for _ in range(number):
        worst = 0.0
        text = solver_text(draw, make_net(draw))
        with tempfile.TemporaryDirectory() as folder:
            should, found = (trained(text, fast, folder) for fast in (False, True))
        assert sorted(should) == sorted(found)
        for name, value in should.items():
            d = np.abs(value - found[name]).max() / max(np.abs(value).max(), 1e-6)
            assert d <= 2e-2, (name, d, text)
            worst = max(worst, d)
        all_worst.append(worst)
    print(number, np.median(all_worst), max(all_worst))


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def memory(solver_file, iterations):
    use(True)
    solver = caffe.get_solver(solver_file)
    solver.step(iterations // 10)
    before = resident()
    solver.step(iterations)
    print(resident() - before)


if __name__ == "__main__":
    problems = worker.check_fast_layers(sys.argv[2])
    assert problems == (None, None, False), problems
    LIBRARY = worker.use_fast_layers(sys.argv[2])
    command, arguments = sys.argv[3], sys.argv[4:]
    if command == "threads":
        LIBRARY.lrbench_set_threads(2)
    if command in ("layers", "threads", "chosen"):
        compare_layers(arguments[0], int(arguments[1]), int(arguments[2]), command == "chosen")
    elif command == "empty":
        pass_empty_batch()
    elif command == "gradients":
        check_gradients(int(arguments[0]), int(arguments[1]))
    elif command == "solvers":
        compare_solvers(int(arguments[0]), int(arguments[1]), block_net)
    elif command == "updates":
        compare_solvers(
            int(arguments[0]), int(arguments[1]), lambda draw: PLAIN_NET % draw.within(1, 70)
        )
    else:
        memory(arguments[0], int(arguments[1]))
