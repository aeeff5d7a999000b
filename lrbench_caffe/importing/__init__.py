"""Caffe's logs as runs of the LR database."""
