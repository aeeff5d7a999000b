"""Makes Caffe LMDBs of the paper's data sets: ``python -m lrbench_caffe.data digits|mnist|cifar10``."""
