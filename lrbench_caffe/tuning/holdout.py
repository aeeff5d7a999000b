"""Records held out of the training set, by which a tuning judges its candidates.

    holdout/SOLVER.prototxt          trains on the rest and tests on the records held out
    holdout/NAME_holdout_train_lmdb  the rest
    holdout/NAME_holdout_test_lmdb   the records held out
    holdout/split.json               what they were made of, once they are complete

The parts are copies, which a study removes when it has ended and makes again where it has to.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.datasets.lmdb_reader import LmdbReader
from lrbench_caffe.datasets.lmdb_scan import read_labels
from lrbench_caffe.datasets.lmdb_split import choose, digest_of, split_bytes, split_lmdb
from lrbench_caffe.datasets.lmdb_writer import locked, writing_to
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.files import SharedUse, replace_own
from lrbench_caffe.knowledge.similarity import HELD_OUT
from lrbench_caffe.prototxt.holdout import CannotSplit, Splittable, splittable, write_holdout
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import dataset_name
from lrbench_caffe.tuning.request import USUAL_HOLDOUT as USUAL

FEWEST = 100  # records held out below which nobody wants it who did not ask for it
LARGEST = 4 << 30  # bytes of copies that are made without being asked for
_FREE = 2  # times as much as the copies take must be free, so that the trainings have room
_FOLDER, _MARK = "holdout", "split.json"


@dataclass
class Holdout:
    """The held-out records of a study.

    Attributes:
        split: the solver and its data.
        share: of the training records; seed: of the choice.
        study: the study's folder.
        use: of that folder by this command; another one may be at the same study.
        digest: of the choice, "" before it is known.
        place: where the solver is, None for beside the parts.
    """

    split: Splittable
    share: float
    seed: int
    study: Path
    use: SharedUse = field(repr=False, compare=False)
    digest: str = ""
    place: Path | None = None
    _ready: bool = field(default=False, init=False)

    @property
    def folder(self) -> Path:
        """Where the solver and the parts are: from here where they are below, so that it does not
        matter how the study's folder is written."""
        path, here = (self.study / _FOLDER).resolve(), Path.cwd()
        return path.relative_to(here) if here in path.parents else path

    @property
    def solver(self) -> str:
        """The solver that trains on the rest."""
        return str((self.place or self.folder) / self.split.solver.path.name)

    @property
    def records(self) -> int:
        """The number of training records, those held out among them."""
        return self.split.records

    @property
    def held(self) -> int:
        """The number of records held out."""
        passes, batch = self.split.passes(self.share)
        return passes * batch

    def make(self, say: Callable[[str], None]) -> None:
        """Make the parts and the solver, if they are not there.

        Raises:
            InputError: the data is not what it was when the study began, or the disk is full.
        """
        if self._ready:
            return
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.use.begin()
        with locked(self.folder):
            kept = self._kept()
            if kept is not None and kept["made_of"] == self._made_of():
                self._know(kept["digest"])
            else:
                self._copy(say)
            rests, held = ({part[0]: part[n] for part in self._parts()} for n in (1, 2))
            write_holdout(self.split, self.share, self.place or self.folder, rests, held)
        self._ready = True

    def remove(self) -> None:
        """Remove the copies, unless another command trains on them: that one removes them later."""
        self._ready = False
        with contextlib.suppress(OSError), self.use.end() as unused:
            if unused:
                self._clear()

    def _clear(self) -> None:
        (self.folder / _MARK).unlink(missing_ok=True)
        for _, rest, held in self._parts():
            shutil.rmtree(rest, ignore_errors=True)
            shutil.rmtree(held, ignore_errors=True)

    def _parts(self) -> list[tuple[Path, Path, Path]]:
        """Each LMDB, and the places of its parts."""
        parts, names = [], set[str]()
        for source in self.split.sources:
            name = f"{dataset_name(str(source))}{HELD_OUT}"
            while name in names:  # images and labels of one name
                name += "_2"
            names.add(name)
            parts.append(
                (source, self.folder / f"{name}_train_lmdb", self.folder / f"{name}_test_lmdb")
            )
        return parts

    def _made_of(self) -> dict[str, Any]:
        """What the parts depend on: they are made again if it changes."""
        stamps = []
        for source in self.split.sources:
            with LmdbReader(source) as reader:
                stamps.append(reader.stamp)
        return {"held_out": self.held, "seed": self.seed, "sources": stamps}

    def _kept(self) -> dict[str, Any] | None:
        try:
            content = json.loads((self.folder / _MARK).read_text(encoding="utf-8"))
            return {"made_of": content["made_of"], "digest": str(content["digest"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _know(self, digest: str) -> None:
        """Learn which records are held out, which must be those of the study."""
        if self.digest not in ("", digest):
            raise ParameterError(
                "{0}: other records would be held out than when the study in {1} began: the data "
                "has changed; allowed: the data as it was, or another {out}",
                self.split.sources[0],
                self.study,
            )
        self.digest = digest

    def _copy(self, say: Callable[[str], None]) -> None:
        self._clear()
        split = self.split
        size = sum(map(split_bytes, split.sources))
        say(
            f"{self.held:,} of {self.records:,} training records are held out to judge by; "
            f"copying {size / 1e6:,.0f} MB to {self.folder}, which is removed at the end"
        )
        self._check_space(size)
        labels = (
            np.zeros(self.records, np.int64) if split.labels is None else read_labels(split.labels)
        )
        held = choose(labels, self.held, self.seed)
        self._know(digest_of(held))
        try:
            for source, rest, held_out in self._parts():
                split_lmdb(source, held, rest, held_out)
        except BaseException:
            self._clear()
            raise
        content = {"made_of": self._made_of(), "digest": self.digest}
        replace_own(self.folder / _MARK, (json.dumps(content, indent=2) + "\n").encode())

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise ParameterError(
                "{0}: the held-out records and the rest take {1:,.0f} MB, {2:,.0f} MB are free; "
                "allowed: free some space, another {out}, or {holdout} 0",
                self.folder,
                size / 1e6,
                free / 1e6,
            )


def choose_holdout(
    asked: float | None, kept: float | None, solver: Solver, seed: int, study: Path
) -> tuple[Holdout | None, str]:
    """What is held out of a solver's training records.

    Args:
        asked: the share that was asked for, None for the usual one where that is possible.
        kept: the share of the study that is continued, None for a new study.
        seed: of the choice.
        study: the study's folder.

    Returns:
        The records, None where none are held out; and why the usual share is not, where that was
        not asked for.

    Raises:
        InputError: the share that was asked for cannot be held out.
    """
    usual = asked is None and kept is None
    share = next(value for value in (asked, kept, USUAL) if value is not None)
    if not share:
        return None, ""
    try:
        holdout = Holdout(splittable(solver), share, seed, study, SharedUse(study))
        if usual:
            _check_usual(holdout)
    except CannotSplit as error:
        if usual:
            return (
                None,
                f"candidates are judged by the test set, as no records can be held out: {error}",
            )
        raise ParameterError(
            "{holdout} {0:g}: {1}; allowed: {holdout} 0, to judge by the test set", share, error
        ) from error
    return holdout, ""


def _check_usual(holdout: Holdout) -> None:
    """Raise CannotSplit where held-out records would say little, or cost more than one expects."""
    if holdout.held < FEWEST:
        many = "1 record" if holdout.held == 1 else f"{holdout.held} records"
        raise CannotSplit(f"they would be {many}, too few to judge by")
    try:
        size = sum(map(split_bytes, holdout.split.sources))
    except InputError as error:
        raise CannotSplit(str(error)) from error
    if size > LARGEST:
        raise CannotSplit(f"they and the rest would be copies of {size / 1e9:,.1f} GB")
    study = holdout.study.resolve()
    free = shutil.disk_usage(next(path for path in (study, *study.parents) if path.exists())).free
    if free < _FREE * size:
        raise CannotSplit(
            f"they and the rest would be copies of {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
        )
