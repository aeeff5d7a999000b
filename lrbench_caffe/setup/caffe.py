"""A Caffe to train with: one that is there already, or the runtime with its fast layers."""

from __future__ import annotations

from lrbench_caffe.setup.layers import make_layers
from lrbench_caffe.setup.progress import say
from lrbench_caffe.setup.runtime import caffe_already_there, make_runtime

ENVIRONMENT = """environment:
  LRBENCH_CAFFE_PYTHON   a Python that can import caffe; it is used and nothing is downloaded for Caffe
  LRBENCH_DEBIAN_MIRROR  URI of a Debian archive with Debian 11 (default: the one this machine's apt uses)
  XDG_CACHE_HOME         where the runtime goes, below lrbench_caffe/caffe-runtime (default: ~/.cache)
"""


def make_caffe(force: bool) -> None:
    """Find a Caffe or make one, with fast layers.

    Args:
        force: whether to make anew what is there.

    Raises:
        SetupError: there is none, and none can be made.
    """
    there = caffe_already_there()
    if there:
        say("Caffe", f"using {there}")
        return
    make_runtime(force)
    make_layers(force)
