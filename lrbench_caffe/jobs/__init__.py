"""Many trainings, each in a process of its own: on this machine, or on a cluster."""

from lrbench_caffe.jobs.pool import LocalPool, Pool
from lrbench_caffe.jobs.retrying import RetryingPool
from lrbench_caffe.jobs.training import Job, JobResult, read_result

__all__ = ["Job", "JobResult", "LocalPool", "Pool", "RetryingPool", "read_result"]
