"""Real Caffe, where it is there."""

from tests.caffe.conftest import caffe_program

__all__ = ["caffe_program"]
