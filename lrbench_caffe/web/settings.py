"""The settings of the web server, as the command line gives them and its processes share them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lrbench_caffe.errors import ParameterError

VARIABLE = "LRBENCH_WEB"  # how the command hands the settings to its worker processes
MIB = 2**20
TERMS = "as each contributor states"


@dataclass(frozen=True)
class WebSettings:
    """The settings of the web server.

    Attributes:
        db: the LR database's URL; None for LRBENCH_DB, else the user's own.
        runs: folders of run directories and tunings that are followed.
        private: whether reading needs a token, too.
        read_only: whether nothing can be uploaded or changed.
        root_path: the path under which a proxy serves it, without a slash at the end.
        upload_mib: the largest upload, uncompressed.
        solver_mib: the largest solver or net for a recommendation.
        requests: reading ones that one address may make in a minute.
        writes: the same for uploads, sign-ins, recommendations and changes.
        secure: whether browsers reach it by https only.
        terms: under which the data can be used, for people.
    """

    db: str | None = None
    runs: tuple[str, ...] = ()
    private: bool = False
    read_only: bool = False
    root_path: str = ""
    upload_mib: int = 1024
    solver_mib: int = 1
    requests: int = 1200
    writes: int = 60
    secure: bool = False
    terms: str = TERMS

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ParameterError: one is not allowed.
        """
        for name in ("upload_mib", "solver_mib", "requests", "writes"):
            if getattr(self, name) < 1:
                raise ParameterError("{" + name + "}: {0}; allowed: 1 or more", getattr(self, name))
        path = self.root_path
        if path and (not path.startswith("/") or path.endswith("/") or not path.isprintable()):
            raise ParameterError(
                "{root_path}: {0!r}; allowed: a path such as /lr, without a slash at the end", path
            )

    @property
    def texts(self) -> int:
        """Bytes of a body with the texts of a recommendation."""
        return 8 * self.solver_mib * MIB  # three, and in JSON the escapes of their characters

    @property
    def folders(self) -> list[Path]:
        """The folders of runs."""
        return [Path(folder) for folder in self.runs]

    def to_environment(self) -> None:
        """Leave the settings to the processes that this one starts."""
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> WebSettings:
        """The settings that ``to_environment`` left."""
        values = json.loads(os.environ[VARIABLE])
        known = {f.name: values[f.name] for f in fields(cls)}
        return cls(**{**known, "runs": tuple(known["runs"])})
