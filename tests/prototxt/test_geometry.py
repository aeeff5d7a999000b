"""Heights and widths through a net; the expected ones are worked out by hand, Caffe's rounding included."""

from __future__ import annotations

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.geometry import check_geometry
from lrbench_caffe.prototxt.sources import Source


def source(height: int, width: int) -> Source:
    return Source("d", "some_lmdb", 10, 100, (3, height, width), False)


def sides(net_of, height: int, width: int, layer: str) -> tuple[int, int]:
    """The size of a layer's top, found with a probe behind it that fits just so, and not one pixel more."""

    def fits(probe: str) -> bool:
        net = net_of(
            'layer { name: "d" type: "Data" top: "x" top: "y" }'
            f'layer {{ name: "l" bottom: "x" top: "t" {layer} }}'
            'layer { name: "probe" type: "Convolution" bottom: "t" top: "p" '
            f"convolution_param {{ {probe} }} }}"
        )
        try:
            check_geometry(net, [(net.layers[0], source(height, width))])
        except InputError as error:
            assert "layer 'probe' (Convolution) of kernel_size " in str(error)
            return False
        return True

    tall = max(size for size in range(1, 60) if fits(f"kernel_h: {size} kernel_w: 1"))
    wide = max(size for size in range(1, 60) if fits(f"kernel_h: 1 kernel_w: {size}"))
    return tall, wide


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        # (28 - 5) / 1 + 1
        ('type: "Convolution" convolution_param { kernel_size: 5 }', (28, 28), (24, 24)),
        # rounded down: (32 + 4 - 5) / 2 = 15.5 -> 15 + 1
        (
            'type: "Convolution" convolution_param { kernel_size: 5 pad: 2 stride: 2 }',
            (32, 32),
            (16, 16),
        ),
        # one value per axis: (20 + 2 - 3) / 1 + 1, (30 + 0 - 5) / 2 + 1 = 13.5
        (
            'type: "Convolution" convolution_param '
            "{ kernel_h: 3 kernel_w: 5 pad_h: 1 pad_w: 0 stride_h: 1 stride_w: 2 }",
            (20, 30),
            (20, 13),
        ),
        (
            'type: "Convolution" convolution_param { kernel_size: [3, 5] pad: [1, 0] stride: [1, 2] }',
            (20, 30),
            (20, 13),
        ),
        # dilated to 2 * (3 - 1) + 1 = 5
        ('type: "Convolution" convolution_param { kernel_size: 3 dilation: 2 }', (10, 10), (6, 6)),
        # rounded up: (24 - 3) / 2 = 10.5 -> 11 + 1
        ('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', (24, 24), (12, 12)),
        ('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', (5, 5), (3, 3)),
        (
            'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }',
            (5, 5),
            (2, 2),
        ),
        # rounded up to 3, but the third window would begin at 6 - 1 = 5, in the padding
        ('type: "Pooling" pooling_param { kernel_size: 2 stride: 3 pad: 1 }', (5, 5), (2, 2)),
        # a kernel that hangs over the edge: (4 - 5) / 2 = -0.5 -> 0 + 1
        ('type: "Pooling" pooling_param { kernel_size: 5 stride: 2 }', (4, 4), (1, 1)),
        ('type: "Pooling" pooling_param { kernel_h: 4 kernel_w: 2 stride: 2 }', (8, 8), (3, 4)),
        ('type: "Pooling" pooling_param { global_pooling: true }', (7, 9), (1, 1)),
        ('type: "ReLU"', (7, 9), (7, 9)),
        ('type: "LRN"', (7, 9), (7, 9)),
        ('type: "Concat" bottom: "x"', (7, 9), (7, 9)),
    ],
)
def test_sizes(net_of, layer, size, expected):
    assert sides(net_of, *size, layer) == expected


LENET = """
layer { name: "d" type: "Data" top: "x" top: "y" }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "c1" convolution_param { kernel_size: 5 } }
layer { name: "pool1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "p1" top: "c2" convolution_param { kernel_size: 5 } }
layer { name: "pool2" type: "Pooling" bottom: "c2" top: "p2" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "p2" top: "ip" }
"""


def test_lenet_needs_12_pixels(net_of):
    # 12 -> 8 -> 4 -> 0: conv2 needs 5, so pool1 must give 5, conv1 9 (rounded up), the image 13.
    net = net_of(LENET)
    data = net.layers[0]
    check_geometry(net, [(data, source(28, 28))])
    check_geometry(net, [(data, source(13, 13))])
    with pytest.raises(InputError) as caught:
        check_geometry(net, [(data, source(12, 28))])
    assert str(caught.value) == (
        "net.prototxt: layer 'conv2' (Convolution) of kernel_size 5 x 5 does not fit its input of 4 x 12; "
        "the records in some_lmdb are 12 x 28: is this the data the net was made for?"
    )


def test_records_that_are_cropped(net_of):
    crop = LENET.replace('top: "y"', 'top: "y" transform_param { crop_size: 12 }')
    net = net_of(crop.replace("kernel_size: 5", "kernel_h: 5 kernel_w: 3"))
    with pytest.raises(InputError) as caught:  # the width: 12 -> 10 -> 5 -> 3
        check_geometry(net, [(net.layers[0], source(12, 12))])
    assert str(caught.value) == (
        "net.prototxt: layer 'conv2' (Convolution) of kernel_size 5 x 3 does not fit its input of 4 x 5; "
        "the records in some_lmdb are cropped to 12 x 12 (crop_size): is this the data the net was made for?"
    )


@pytest.mark.parametrize(
    "between",
    [
        'type: "Reshape"',
        'type: "Concat" bottom: "x" concat_param { axis: 2 }',
        'type: "Deconvolution" convolution_param { kernel_size: 9 }',
        'type: "Mine"',
    ],
)
def test_behind_a_layer_of_unknown_size_nothing_is_said(net_of, between):
    net = net_of(
        'layer { name: "d" type: "Data" top: "x" top: "y" }'
        f'layer {{ name: "u" bottom: "x" top: "x2" {between} }}'
        'layer { name: "c" type: "Convolution" bottom: "x2" top: "c" convolution_param { kernel_size: 5 } }'
    )
    check_geometry(net, [(net.layers[0], source(4, 4))])


def test_unknown_records(net_of):
    net = net_of(LENET)
    check_geometry(net, [])
    check_geometry(net, [(net.layers[0], Source("d", "list", 1, 1, None, False))])


def test_each_data_layer_has_its_own_size(net_of):
    """An input of 12 x 12 is too small for LeNet, one of 28 x 28 is not; two layers have one name."""
    net = net_of('layer { name: "d" type: "Data" top: "small" }' + LENET)
    small, data = net.layers[:2]
    check_geometry(net, [(small, source(12, 12)), (data, source(28, 28))])
    with pytest.raises(InputError, match="layer 'conv2' .* the records in some_lmdb are 12 x 12"):
        check_geometry(net, [(small, source(28, 28)), (data, source(12, 12))])
