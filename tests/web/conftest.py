"""Databases and servers of the web tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi")

from lrbench_caffe.database import Database
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.web.settings import WebSettings
from tests.database.conftest import database, kind, new_url, server, templates, url
from tests.web.pages_data import fill, write_studies
from tests.web.serving import Client, serving

__all__ = ["database", "kind", "new_url", "server", "templates", "url"]


@pytest.fixture
def serve(url: str) -> Iterator[Callable[..., str]]:
    """``serve(private=True, ...)`` serves the test's database and gives the address."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> str:
            plenty = {"requests": 10**6, "writes": 10**6}
            return stack.enter_context(serving(WebSettings(db=url, **{**plenty, **settings})))

        yield begin


@pytest.fixture
def client(serve: Callable[..., str]) -> Client:
    """A visitor without a token."""
    return Client(serve())


@pytest.fixture
def token(database: Database) -> Callable[..., str]:
    """``token(name, scope)`` makes a token and gives its secret."""
    return Platform(database).add_token


@dataclass(frozen=True)
class Site:
    """A server for the tests of the pages, which change nothing that others look at.

    Attributes:
        url: its address; admin: the secret of an admin's token.
    """

    url: str
    admin: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    db = str(folder / "lr.sqlite")
    with Database.open(db) as database:
        fill(database)
        admin = Platform(database).add_token("root", "admin")
    write_studies(folder / "runs")
    settings = WebSettings(
        db=db, runs=(str(folder / "runs"),), requests=10**6, writes=10**6, terms="CC BY <4.0>"
    )
    with serving(settings) as url:
        yield Site(url, admin)
