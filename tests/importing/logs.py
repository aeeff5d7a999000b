"""What the tests of logs share: a log as a file, and its runs."""

from __future__ import annotations

from pathlib import Path

from lrbench_caffe.importing.caffelog import records_from_log
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.records import RunRecord


class Reader:
    """Writes texts to a file and reads the runs of it; ``notes`` are those of the last one."""

    def __init__(self, folder: Path, messages: Messages) -> None:
        self.path = folder / "x.log"
        self.notes: list[str] = []
        self._messages = messages

    def all_of(self, log: str | bytes, **options: object) -> list[RunRecord]:
        self.notes = []
        self.path.write_bytes(log if isinstance(log, bytes) else log.encode())
        return records_from_log(self.path, self._messages, note=self.notes.append, **options)

    def one(self, log: str | bytes, **options: object) -> RunRecord:
        (record,) = self.all_of(log, **options)
        return record

    def noted(self, words: str) -> bool:
        return any(words in note for note in self.notes)


def until(log: str, words: str) -> str:
    """The log's lines before the first one with these words."""
    return log[: log.rindex("\n", 0, log.index(words)) + 1]
