"""The databases that the tests use: SQLite files, and databases of a PostgreSQL server that they start."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from tests.database.server import NoServer, Server

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server; without its programs the tests are skipped, in CI they fail."""
    try:
        started = Server()
    except NoServer as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    yield started
    started.remove()


@pytest.fixture(scope="session")
def templates(fresh: Path) -> dict[str, str]:
    """Databases that were opened once, to copy: by kind."""
    return {"sqlite": str(fresh)}


@contextlib.contextmanager
def new_databases(
    request: pytest.FixtureRequest, folder: Path, templates: dict[str, str]
) -> Iterator[Callable[..., str]]:
    """``make(kind)`` makes a database that was opened once; with ``empty=True`` one that never was."""
    made: list[str] = []

    def make(kind: str, empty: bool = False) -> str:
        if kind == "sqlite":
            path = folder / f"lr{len(list(folder.iterdir()))}.sqlite"
            if not empty:
                shutil.copy(templates["sqlite"], path)
            return f"sqlite:///{path}"
        server: Server = request.getfixturevalue("server")
        if "postgresql" not in templates:
            templates["postgresql"] = server.create()
            Database.open(server.url(templates["postgresql"])).close()
        name = server.create(None if empty else templates["postgresql"])
        made.append(name)
        return server.url(name)

    yield make
    if made:
        server: Server = request.getfixturevalue("server")
        for name in made:
            server.drop(name)


@pytest.fixture
def new_url(
    request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, str]
) -> Iterator[Callable[..., str]]:
    """``new_url(kind)``: see ``new_databases``."""
    with new_databases(request, tmp_path, templates) as make:
        yield make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, new_url: Callable[..., str]) -> str:
    """Of a database that holds the paper's results only."""
    return new_url(kind)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database.open(url, patience=10) as opened:
        yield opened
