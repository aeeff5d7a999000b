"""What this machine's CPU is, as Linux tells it. Standard library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class CPU:
    """A CPU.

    Attributes:
        vendor: such as "GenuineIntel"; empty where it is not told.
        model: family, model and stepping; two CPUs of one model have the same kernels in OpenBLAS.
        features: the names of its instruction sets in /proc/cpuinfo, such as "avx2"; None where
            they are unknown.
    """

    vendor: str
    model: tuple[str, ...]
    features: frozenset[str] | None

    def has(self, *features: str) -> bool:
        return self.features is not None and self.features.issuperset(features)


def this_cpu() -> CPU:
    """The first of this machine's CPUs; they are all alike."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return CPU("", (), None)
    numbers = tuple(_field(text, name) for name in ("cpu family", "model", "stepping"))
    return CPU(_field(text, "vendor_id"), numbers, frozenset(_field(text, "flags").split()))


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""
