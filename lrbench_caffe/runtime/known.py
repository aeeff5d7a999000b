"""A Caffe that is known without being here: the description that comes with the project.

It is of BVLC Caffe (August 2018), as ``tools/make_caffe_description`` wrote it: its layers, and its
caffe.proto (BSD-2-Clause, the BVLC and contributors) as a serialized FileDescriptorProto.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import asdict
from pathlib import Path

from lrbench_caffe.runtime.replies import CaffeInfo

FILE = Path(__file__).with_name("known_caffe.json.gz")

# What is so on one machine only.
_ELSEWHERE = {
    "python": "", "executable": "", "path": "", "cuda": False, "gpus": 0, "blas": [], "files": [],
    "blas_kernels": None,
}  # fmt: skip


def known_caffe() -> CaffeInfo:
    """The description. There is no Caffe behind it: nothing can be trained with it."""
    record = json.loads(gzip.decompress(FILE.read_bytes()))
    return CaffeInfo(**{**record, "descriptor": base64.b64decode(record["descriptor"])})


def description(info: CaffeInfo) -> bytes:
    """The content of ``FILE`` for a Caffe: the same for the same Caffe, wherever it is."""
    record = {**asdict(info), **_ELSEWHERE}
    record["descriptor"] = base64.b64encode(info.descriptor).decode()
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)
