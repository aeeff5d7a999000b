"""What leaves this machine with a run: not the folders that its files are in, nor the machine's name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePath

from lrbench_caffe.records import RunRecord, origin_parts

# Of a path in a text, all but its last part: /home/ada/runs/ and ~/runs/. In quotes it may have spaces.
_QUOTED = re.compile(r"""(?<=(['"]))(?:~[\w.-]*)?/(?:(?!\1)[^\n])*/(?=[^/\n])""")
_FOLDERS = re.compile(r"(?<![\w/.:~-])(?:~[\w.-]*)?/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")
THE_MACHINE = "the machine"


def without_places(record: RunRecord) -> RunRecord:
    """A run without what tells of its contributor's machine and changes no result.

    The origin keeps the last part of each path: the run directory's or the log's name. The reason
    of a failure, which may be Caffe's last words, keeps the last part, too. The machine's name is
    left out of both, and as a field.
    """
    reason = None if record.reason is None else _plain(record, record.reason)
    origin = _without_machine(record, _origin(record))
    return replace(record, origin=origin, reason=reason, machine=None)


def _origin(record: RunRecord) -> str:
    files, remarks = origin_parts(record.origin)
    paths = _paths(files) if record.source == "imported" else [PurePath(files)]
    for folder in dict.fromkeys(path.parent for path in paths):
        remarks = _without_folder(folder, remarks)
    return ", ".join(path.name for path in paths) + _without_folders(remarks)


def _paths(files: str) -> list[PurePath]:
    """The logs of a run.

    A comma may be part of a folder's name. It ends a path only before an absolute one, before one
    of the first one's folder, and where there is no folder.
    """
    folder = PurePath(files.partition(", ")[0]).parent
    known = "" if folder == PurePath() else rf"|{re.escape(str(folder))}/"
    parts = re.split(rf", (?=/{known})", files) if "/" in files else files.split(", ")
    return [PurePath(part) for part in parts]


def _plain(record: RunRecord, text: str) -> str:
    # These two may have spaces, after which nothing tells that a path goes on.
    for folder in (PurePath(record.origin).parent, Path.home()):
        text = _without_folder(folder, text)
    return _without_machine(record, _without_folders(text))


def _without_folder(folder: PurePath, text: str) -> str:
    if not folder.is_absolute() or folder == PurePath("/"):
        return text
    return text.replace(f"{folder}/", "")


def _without_folders(text: str) -> str:
    """The text with the last part of each absolute path in it.

    >>> _without_folders("cannot read '/home/ada/my data/train.txt': see /var/log/x.log and http://a.org/b/c")
    "cannot read 'train.txt': see x.log and http://a.org/b/c"
    """
    return _FOLDERS.sub("", _QUOTED.sub("", text))


def _without_machine(record: RunRecord, text: str) -> str:
    if not record.machine:
        return text
    return re.sub(rf"(?<![\w-]){re.escape(record.machine)}(?![\w-])", THE_MACHINE, text)
