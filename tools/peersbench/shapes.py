"""Layers of well-known nets, for tools/bench_layers and tools/bench_peers to measure one by one."""

from __future__ import annotations

# Layers by themselves: name, type, the input's shape, parameters. A convolution of three channels
# is a net's first, where no gradient of the data is wanted.
SHAPES = [
    ("AlexNet conv1", "Convolution", (4, 3, 227, 227), "num_output: 96 kernel_size: 11 stride: 4"),
    ("AlexNet conv3", "Convolution", (8, 256, 13, 13), "num_output: 384 kernel_size: 3 pad: 1"),
    (
        "CaffeNet conv2, one group",
        "Convolution",
        (8, 96, 27, 27),
        "num_output: 256 kernel_size: 5 pad: 2",
    ),
    ("AlexNet fc6 as 6 x 6", "Convolution", (8, 256, 6, 6), "num_output: 1024 kernel_size: 6"),
    ("VGG conv1_1", "Convolution", (2, 3, 224, 224), "num_output: 64 kernel_size: 3 pad: 1"),
    ("VGG conv1_2", "Convolution", (1, 64, 224, 224), "num_output: 64 kernel_size: 3 pad: 1"),
    ("VGG conv2_1", "Convolution", (1, 64, 112, 112), "num_output: 128 kernel_size: 3 pad: 1"),
    ("VGG conv5", "Convolution", (4, 512, 14, 14), "num_output: 512 kernel_size: 3 pad: 1"),
    ("GoogLeNet 3a 1 x 1", "Convolution", (8, 192, 28, 28), "num_output: 64 kernel_size: 1"),
    ("GoogLeNet 3a 5 x 5", "Convolution", (8, 16, 28, 28), "num_output: 32 kernel_size: 5 pad: 2"),
    ("GoogLeNet 4e 5 x 5", "Convolution", (8, 32, 14, 14), "num_output: 128 kernel_size: 5 pad: 2"),
    (
        "ResNet-50 conv1",
        "Convolution",
        (2, 3, 224, 224),
        "num_output: 64 kernel_size: 7 pad: 3 stride: 2",
    ),
    (
        "ResNet-50 res2 3 x 3",
        "Convolution",
        (8, 64, 56, 56),
        "num_output: 64 kernel_size: 3 pad: 1",
    ),
    ("ResNet-50 res2 1 x 1", "Convolution", (8, 64, 28, 28), "num_output: 256 kernel_size: 1"),
    (
        "ResNet-50 res3 shortcut",
        "Convolution",
        (4, 256, 28, 28),
        "num_output: 512 kernel_size: 1 stride: 2",
    ),
    (
        "ResNet-50 res4, 1 image",
        "Convolution",
        (1, 256, 14, 14),
        "num_output: 256 kernel_size: 3 pad: 1",
    ),
    (
        "ResNet-50 res4, 16 images",
        "Convolution",
        (16, 256, 14, 14),
        "num_output: 256 kernel_size: 3 pad: 1",
    ),
    (
        "ResNet-50 res5 3 x 3",
        "Convolution",
        (4, 512, 7, 7),
        "num_output: 512 kernel_size: 3 pad: 1",
    ),
    ("ResNet-50 res5 1 x 1", "Convolution", (4, 512, 7, 7), "num_output: 2048 kernel_size: 1"),
    (
        "stride 2, 3 x 3",
        "Convolution",
        (4, 128, 56, 56),
        "num_output: 128 kernel_size: 3 pad: 1 stride: 2",
    ),
    (
        "dilation 2, 3 x 3",
        "Convolution",
        (4, 512, 14, 14),
        "num_output: 512 kernel_size: 3 pad: 2 dilation: 2",
    ),
    (
        "CaffeNet conv2, two groups",
        "Convolution",
        (8, 96, 27, 27),
        "num_output: 256 kernel_size: 5 pad: 2 group: 2",
    ),
    (
        "MobileNet depthwise",
        "Convolution",
        (8, 256, 28, 28),
        "num_output: 256 kernel_size: 3 pad: 1 group: 256",
    ),
    (
        "MobileNet depthwise, stride 2",
        "Convolution",
        (8, 256, 28, 28),
        "num_output: 256 kernel_size: 3 pad: 1 stride: 2 group: 256",
    ),
    ("MobileNet 1 x 1", "Convolution", (8, 256, 28, 28), "num_output: 256 kernel_size: 1"),
    ("AlexNet norm1, beta 0.75", "LRN", (8, 96, 55, 55), "local_size: 5 alpha: 0.0001 beta: 0.75"),
    ("beta 0.5", "LRN", (8, 96, 55, 55), "local_size: 5 alpha: 0.0001 beta: 0.5"),
    ("beta 1", "LRN", (8, 96, 55, 55), "local_size: 5 alpha: 0.0001 beta: 1"),
    ("AlexNet pool1", "Pooling", (8, 96, 55, 55), "kernel_size: 3 stride: 2"),
    ("ResNet-50 pool5", "Pooling", (8, 2048, 7, 7), "pool: AVE kernel_size: 7"),
]
