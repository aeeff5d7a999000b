"""Starting a worker for fast layers: with the fastest kernels and libraries that compute what they should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe.runtime.checked import is_known_good, remember_good
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.replies import Check


@dataclass(frozen=True)
class FastLayers:
    """The fast layers that a worker is wanted with.

    Attributes:
        libraries: the libraries to try, that of the widest vectors first.
        blas_kernels: the sets of OpenBLAS's kernels to try, best first; OpenBLAS's own choice is
            the last one, which is not named here.
        threads: that the layers work on.
        measure: whether a library is passed over whose vectors are no faster than narrower ones;
            a run that has begun keeps its library.
        recheck: check them even where a check is remembered.
    """

    libraries: Sequence[Path]
    blas_kernels: Sequence[str] = ()
    threads: int = 1
    measure: bool = True
    recheck: bool = False


@dataclass(frozen=True)
class Started:
    """A worker that was checked.

    Attributes:
        worker: the worker.
        library: the library of fast layers that it can use; None where it must train with Caffe's
            own layers. It then has OpenBLAS's own choice of kernels, as ``caffe train`` has.
        problem: why it must.
    """

    worker: Worker
    library: Path | None
    problem: str | None = None


def start_checked(
    start: Callable[[str | None], Worker], wanted: FastLayers, note: Callable[[str], None]
) -> Started:
    """Start a worker and let it compare products and layers with plain sums and Caffe's own.

    Args:
        start: starts a worker with a set of OpenBLAS's kernels; None for OpenBLAS's own choice.
        wanted: what it is to have.
        note: is told which kernels and libraries compute something else.
    """
    for kernels in (*wanted.blas_kernels, None):
        worker = start(kernels)
        library, check = _checked(worker, wanted, note)
        if check.products is None or kernels is None:
            break
        worker.close()
        note(f"WARNING: OpenBLAS's {kernels} kernels are not used: {check.products}")
    problem = check.products or check.layers
    if problem is None:
        return Started(worker, library)
    if kernels is not None:
        worker.close()
        worker = start(None)
    return Started(worker, None, problem)


def _checked(worker: Worker, wanted: FastLayers, note: Callable[[str], None]) -> tuple[Path, Check]:
    """The first library that is right and not slow, else the last one."""
    *first, last = wanted.libraries
    try:
        for library in first:
            check = _check(worker, library, wanted, measure=wanted.measure)
            if check.products or not (check.layers or check.slow):
                return library, check
            if check.layers:
                note(
                    f"WARNING: the fast layers' vectors are narrower than they could be: {check.layers}"
                )
        return last, _check(worker, last, wanted, measure=False)
    except BaseException:
        worker.kill()
        raise


def _check(worker: Worker, library: Path, wanted: FastLayers, *, measure: bool) -> Check:
    """What the worker says of a library, or what it said the last time, where that was good."""
    info, threads = worker.info, wanted.threads
    if not wanted.recheck and is_known_good(library, info, threads, measure=measure):
        return Check(None, None, False)
    check = worker.check(str(library), threads, measure=measure)
    if check == Check(None, None, False):
        remember_good(library, info, threads, measured=measure)
    return check
