"""Starting a worker for fast layers: with the fastest kernels of OpenBLAS that compute what they should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe.runtime.client import Worker


@dataclass(frozen=True)
class FastLayers:
    """The fast layers that a worker is wanted with.

    Attributes:
        library: the library.
        blas_kernels: the sets of OpenBLAS's kernels to try, best first; OpenBLAS's own choice is
            the last one, which is not named here.
        threads: that the layers work on.
    """

    library: Path
    blas_kernels: Sequence[str] = ()
    threads: int = 1


def start_checked(
    start: Callable[[str | None], Worker], wanted: FastLayers, note: Callable[[str], None]
) -> tuple[Worker, str | None]:
    """Start a worker and let it compare products and layers with plain sums and Caffe's own.

    Args:
        start: starts a worker with a set of OpenBLAS's kernels; None for OpenBLAS's own choice.
        wanted: what it is to have.
        note: is told which kernels compute something else.

    Returns:
        The worker, and why it must train with Caffe's own layers, None where it need not. Such a
        worker has OpenBLAS's own choice of kernels, as ``caffe train`` has.
    """
    for kernels in (*wanted.blas_kernels, None):
        worker = start(kernels)
        products, layers = _checked(worker, wanted)
        if products is None or kernels is None:
            break
        worker.close()
        note(f"WARNING: OpenBLAS's {kernels} kernels are not used: {products}")
    problem = products or layers
    if problem and kernels is not None:
        worker.close()
        worker = start(None)
    return worker, problem


def _checked(worker: Worker, wanted: FastLayers) -> tuple[str | None, str | None]:
    try:
        return worker.check(str(wanted.library), wanted.threads)
    except BaseException:
        worker.kill()
        raise
