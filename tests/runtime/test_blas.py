"""Which kernels of OpenBLAS a CPU can have, and which ones a training is started with."""

from __future__ import annotations

import pytest

from lrbench_caffe.runtime import blas, cpu
from lrbench_caffe.runtime.blas import VARIABLE, better_kernels, can_have, kernels_to_try
from lrbench_caffe.runtime.cpu import CPU, this_cpu

AVX512 = ["avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"]
OLD = CPU("GenuineIntel", ("6", "26", "5"), frozenset(["sse2", "ssse3"]))
AVX2 = CPU("GenuineIntel", ("6", "151", "2"), frozenset(["avx", "avx2", "fma"]))
ZEN = CPU("AuthenticAMD", ("25", "33", "0"), frozenset(["avx", "avx2", "fma"]))
WIDE = CPU("AuthenticAMD", ("26", "2", "1"), frozenset(["avx", "avx2", "fma", *AVX512]))
UNKNOWN = CPU("", (), None)

CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx avx2 fma

processor\t: 1
vendor_id\t: AuthenticAMD
"""


@pytest.fixture(autouse=True)
def without_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_cpu_that_openblas_does_not_know_gets_what_it_has_instructions_for():
    assert better_kernels("Barcelona", WIDE) == ["SkylakeX", "Zen"]
    assert better_kernels("Prescott", AVX2) == ["Haswell"]
    assert better_kernels("Prescott", ZEN) == ["Zen"]
    assert better_kernels("Prescott", OLD) == []
    assert better_kernels("Prescott", UNKNOWN) == []


def test_a_choice_that_is_as_good_stays():
    assert better_kernels("Haswell", AVX2) == []
    assert better_kernels("Zen", ZEN) == []
    assert better_kernels("Zen", WIDE) == ["SkylakeX"]
    assert better_kernels("Cooperlake", WIDE) == []
    assert better_kernels("SapphireRapids", WIDE) == []  # of a newer OpenBLAS
    assert better_kernels(None, WIDE) == []  # another BLAS


def test_what_the_user_names_stays(monkeypatch):
    assert kernels_to_try("Prescott", None, WIDE) == ["SkylakeX", "Zen"]
    monkeypatch.setenv(VARIABLE, "")  # none for OpenBLAS, too
    assert kernels_to_try("Prescott", None, WIDE) == ["SkylakeX", "Zen"]
    monkeypatch.setenv(VARIABLE, "Prescott")
    assert kernels_to_try("Prescott", None, WIDE) == []
    assert kernels_to_try("Prescott", "SkylakeX", WIDE) == []


def test_a_resumed_run_keeps_its_kernels_where_the_cpu_has_them():
    assert kernels_to_try("Prescott", "SkylakeX", WIDE) == ["SkylakeX", "Zen"]
    assert kernels_to_try("Prescott", "Haswell", WIDE) == ["Haswell"]
    assert kernels_to_try("Prescott", "Prescott", WIDE) == []  # from before they were chosen
    assert kernels_to_try("Haswell", "Prescott", AVX2) == ["Prescott"]
    assert kernels_to_try("Haswell", "SkylakeX", AVX2) == []
    assert kernels_to_try("Prescott", "SkylakeX", AVX2) == ["Haswell"]
    assert kernels_to_try(None, "SkylakeX", WIDE) == []


def test_what_a_cpu_can_have():
    assert can_have("SkylakeX", WIDE) and not can_have("SkylakeX", AVX2)
    assert can_have("Nehalem", OLD) and not can_have("Haswell", OLD)
    assert not can_have("Nonsense", WIDE) and not can_have("Haswell", UNKNOWN)


def test_the_cpu_is_read_from_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert this_cpu() == UNKNOWN
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    features = frozenset(["fpu", "avx", "avx2", "fma"])
    assert this_cpu() == CPU("AuthenticAMD", ("26", "2", "1"), features)
    (tmp_path / "cpuinfo").write_text("processor : 0\n")  # another architecture
    assert this_cpu() == CPU("", ("", "", ""), frozenset())
    assert not blas.can_have("Haswell", this_cpu())
