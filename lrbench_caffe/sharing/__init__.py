"""Sharing runs with a platform: the other side of ``lrbench_caffe.web``, over HTTP."""
