"""A contender in PyTorch's Python: trains nets, or runs single convolutions, on one thread of the CPU.

Its argument is the memory format: ``contiguous`` or ``channels_last``. The nets are those of Caffe's
contenders, layer by layer as reading.py tells them; written as one would for PyTorch: BatchNorm and
its Scale are one layer, ReLU works in place where Caffe's does, and the fused SGD is used.
"""

import sys

import serving
import torch
from torch import nn
from torch.nn import functional

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LR, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4  # as reading.py has them for Caffe


def begin():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    order = FORMATS[sys.argv[1]]
    about = {
        "version": f"PyTorch {torch.__version__}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    return (
        about,
        lambda request: (
            Training(request, order) if "layers" in request else Convolution(request, order)
        ),
    )


class WithinChannel(nn.Module):
    """Caffe's local response normalization within channels, which PyTorch has no layer for."""

    def __init__(self, size, alpha, beta):
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x):
        mean = functional.avg_pool2d(x * x, self.size, stride=1, padding=(self.size - 1) // 2)
        return x * (1 + self.alpha * mean).pow(-self.beta)


class Sum(nn.Module):
    def forward(self, first, *others):
        for other in others:
            first = first + other
        return first


class Concatenation(nn.Module):
    def forward(self, *parts):
        return torch.cat(parts, 1)


class Zeros(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def pooling(method, kernel, stride, pad):
    kind = {"MAX": nn.MaxPool2d, "AVE": nn.AvgPool2d}[method]
    return kind(kernel, stride, pad, ceil_mode=True)  # as Caffe counts pixels


# Makers by the kind of layer, of what reading.py says of one.
MAKERS = {
    "convolution": lambda **settings: nn.Conv2d(**settings),
    "linear": lambda in_features, out_features, bias: nn.Sequential(
        nn.Flatten(), nn.Linear(in_features, out_features, bias)
    ),
    "norm": lambda channels, eps: nn.BatchNorm2d(channels, eps),
    "relu": lambda inplace: nn.ReLU(inplace),
    "dropout": lambda ratio: nn.Dropout(
        ratio
    ),  # in place, it would spoil what the ReLU before it keeps
    "pooling": pooling,
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
    "lrn": lambda size, alpha, beta, k: nn.LocalResponseNorm(size, alpha, beta, k),
    "lrn within": WithinChannel,
    "sum": Sum,
    "concatenation": Concatenation,
    "zeros": Zeros,
}


class Net(nn.Module):
    """The layers in their order; a blob is known by its name until another takes it."""

    def __init__(self, layers):
        super().__init__()
        self.plan = [(layer["bottoms"], layer["top"]) for layer in layers]
        self.steps = nn.ModuleList(MAKERS[layer["kind"]](**layer["settings"]) for layer in layers)

    def forward(self, images):
        blobs = {"data": images}
        for step, (bottoms, top) in zip(self.steps, self.plan):
            blobs[top] = step(*[blobs[bottom] for bottom in bottoms])
        return blobs


class Training:
    """A net, its optimizer, and random images and labels in memory."""

    def __init__(self, request, order):
        self.net = Net(request["layers"]).to(memory_format=order).train()
        self.losses = request["losses"]
        self.images = torch.randn(*request["images"]).contiguous(memory_format=order)
        self.labels = torch.randint(request["classes"], request["images"][:1])
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, fused=True
        )
        self.about = {"parameters": sum(p.numel() for p in self.net.parameters())}

    def run(self, passes, watch):
        watch.time("iteration", lambda: self.step(passes))

    def step(self, passes):
        for _ in range(passes):
            self.optimizer.zero_grad()
            blobs = self.net(self.images)
            loss = sum(
                weight * functional.cross_entropy(blobs[scores], self.labels)
                for scores, weight in self.losses
            )
            loss.backward()
            self.optimizer.step()
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {loss.item()}")


class Convolution:
    """A convolution by itself; that of three channels is a net's first: no gradient of its data."""

    def __init__(self, request, order):
        self.settings = dict(request["convolution"])
        inputs, outputs = self.settings.pop("in_channels"), self.settings.pop("out_channels")
        kernel, self.biased = self.settings.pop("kernel_size"), self.settings.pop("bias")
        shape = request["shape"]
        self.x = self.uniform(shape, order)
        weights = self.uniform([outputs, inputs // self.settings["groups"], *kernel], order)
        self.wanted = [weights.requires_grad_()]
        if self.biased:
            self.wanted.append(self.uniform([outputs]).requires_grad_())
        self.parameters = list(self.wanted)
        if shape[1] != 3:
            self.wanted.append(self.x.requires_grad_())
        made = self.forward()
        self.gradient = self.uniform(made.shape, order)
        self.about = {"output": list(made.shape)}

    @staticmethod
    def uniform(shape, order=torch.contiguous_format):
        return torch.empty(*shape).uniform_(-1, 1).contiguous(memory_format=order)

    def forward(self):
        return functional.conv2d(self.x, *self.parameters, **self.settings)

    def run(self, passes, watch):
        for _ in range(passes):
            made = watch.time("forward", self.forward)
            watch.time(
                "backward", lambda made=made: torch.autograd.grad(made, self.wanted, self.gradient)
            )


if __name__ == "__main__":
    serving.serve(begin)
