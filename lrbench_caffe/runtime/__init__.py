"""The edge to Caffe: finding it, the process it runs in, and the driver's client for it."""
