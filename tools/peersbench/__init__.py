"""Caffe, our fast layers and PyTorch take turns at training the same nets: what tools/bench_peers measures.

Every contender is a process of its own, which its peak memory and the kernels of its BLAS belong
to. caffe_side.py runs in Caffe's Python and torch_side.py in PyTorch's; serving.py is what both
have in common. All else runs in the tool's own.
"""
