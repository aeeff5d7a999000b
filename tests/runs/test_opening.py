"""The LR database's folder: the user's own is made, that of a named file is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrbench_caffe.database.urls import VARIABLE, resolve_url
from lrbench_caffe.errors import InputError
from lrbench_caffe.runs.opening import check_folder


@pytest.fixture(autouse=True)
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of a user who has not used the program."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path


def test_the_folder_of_the_own_database_may_be_made_also_where_it_is_named_in_full() -> None:
    # As a study names it, for its trainings.
    for url in (None, resolve_url(None)):
        check_folder(url)


def test_the_folder_of_a_named_file_is_not_made(new_home: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        check_folder(str(new_home / "absent" / "lr.sqlite"))
