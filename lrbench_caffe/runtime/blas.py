"""OpenBLAS's kernels: one set of them for each kind of CPU, chosen when the library is loaded.

OpenBLAS knows the CPUs that there were when it was released. Debian 11's does not know newer ones,
and some of them get kernels of 2004 that do a quarter of the multiply-adds. OPENBLAS_CORETYPE names
the set to use instead.
"""

from __future__ import annotations

import os

from lrbench_caffe.runtime.cpu import CPU

VARIABLE = "OPENBLAS_CORETYPE"

_AVX = {"avx"}
_AMD_FMA = {"avx", "fma4"}
_AVX2 = {"avx2", "fma"}
_AVX512 = {*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_WITHOUT_AVX = [
    "Katmai", "Coppermine", "Northwood", "Prescott", "Banias", "Atom", "Core2", "Penryn",
    "Dunnington", "Nehalem", "Athlon", "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat", "Nano",
]  # fmt: skip
# By the name of the set: how wide its vectors are (in bits) and what it needs of the CPU.
_SETS: dict[str, tuple[int, set[str]]] = {
    **dict.fromkeys(_WITHOUT_AVX, (128, set())),
    "Sandybridge": (128, _AVX),  # its multiplications and additions are apart: as fast as 128
    **dict.fromkeys(["Bulldozer", "Piledriver", "Steamroller", "Excavator"], (128, _AMD_FMA)),
    "Zen": (256, _AVX2),
    "Haswell": (256, _AVX2),
    "Cooperlake": (512, {*_AVX512, "avx512_bf16"}),
    "SkylakeX": (512, _AVX512),
}
_AMD = ("AuthenticAMD", "HygonGenuine")


def is_chosen_by_user(own: str) -> bool:
    """Whether the environment names the kernels that OpenBLAS has.

    It does not take the name of a set that it has not, or that the CPU cannot have.

    Args:
        own: the set that it has.
    """
    return os.environ.get(VARIABLE, "").lower() == own.lower()


def can_have(kernels: str, cpu: CPU) -> bool:
    """Whether a CPU has what a set of kernels needs."""
    return kernels in _SETS and cpu.has(*_SETS[kernels][1])


def better_kernels(own: str | None, cpu: CPU) -> list[str]:
    """The sets that are faster on a CPU than the one that OpenBLAS chooses by itself, best first.

    Args:
        own: the name of the set that it chooses; None where the BLAS is not OpenBLAS. A name that
            is not known here is one of a newer OpenBLAS, which knows newer CPUs.
        cpu: the CPU.
    """
    if own not in _SETS:
        return []
    candidates = ["SkylakeX", "Zen" if cpu.vendor in _AMD else "Haswell"]
    return [name for name in candidates if can_have(name, cpu) and _SETS[name][0] > _SETS[own][0]]


def kernels_to_try(own: str | None, recorded: str | None, cpu: CPU) -> list[str]:
    """The sets to start a worker with, best first; none where OpenBLAS's own choice is to stay.

    Args:
        own: as for ``better_kernels``.
        recorded: the set that a resumed run was trained with, whose bits it keeps; None for a new
            run.
        cpu: the CPU.
    """
    if own is None or is_chosen_by_user(own):
        return []
    better = better_kernels(own, cpu)
    if recorded is None or not can_have(recorded, cpu):
        return better
    if recorded == own:
        return []
    return [recorded, *(name for name in better if _SETS[name][0] < _SETS[recorded][0])]
