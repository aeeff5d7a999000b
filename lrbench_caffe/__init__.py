"""LRBench for Caffe: find, measure, rank and recommend learning-rate policies."""

__version__ = "0.1.0"
