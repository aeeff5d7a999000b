"""What pycaffe has for pictures. The real one loads scipy and skimage."""

import sys

sys.stderr.write("loaded: caffe.io\n")
sys.stderr.flush()
