"""The databases that results wait for: those of the database's own tests."""

from tests.database.conftest import kind, new_url, server, templates, url

__all__ = ["kind", "new_url", "server", "templates", "url"]
