"""The edge to Caffe: where it is, the process it runs in, and the driver's hold on that process."""
