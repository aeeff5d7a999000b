"""The LR database's URL, and how to show it without a password. Imports no database library."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lrbench_caffe.errors import InputError

VARIABLE = "LRBENCH_DB"
HIDDEN = "***"

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg2")
_SQLITE = ("sqlite", "sqlite+pysqlite")
_ALLOWED = "a file, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
_SLASHES = "database URL {}: write a file as sqlite:///FILE, with three slashes"
_SECRET_OPTION = re.compile(r"(?i)([?&;][^=&?;]*(?:pass|pwd|secret|token)[^=&?;]*=)[^&]*")
_USER_AND_PASSWORD = re.compile(r"^([^:/@?]*):.*@", re.DOTALL)
# What follows a host's colon must be a port; anything else is a password in a URL that was cut
# short.
_NO_PORT = re.compile(r"^([^:/@?\[\]]*):(?!\d*(?:[/?,]|$)).*", re.DOTALL)

# Lengths have limits, so that the time does not grow with the square of a text's length.
_URL_OR_LOGIN = re.compile(
    r"(?P<url>[A-Za-z][\w+.-]{0,40}://\S+?)(?=[;,.)\]'\"]{0,40}(?:\s|$))"
    r"|[\w.%+-]{1,100}:\S{0,4000}@(?=[\w\[])"
)
_PASSWORD_PAIR = re.compile(
    r"(?i)((?:password|passwd|pwd)\s*=\s*)(?:'(?:\\.|[^'\\])*'|\"[^\"]*\"|(?:\\.|[^\s&'\"\\])+)"
)
# What is meant for PostgreSQL and would otherwise be the name of a file, password and all.
_NO_FILE = re.compile(
    r"(?i)postgres(ql)?(\+\w+)?:"
    r"|(.*\s)?(host|hostaddr|port|dbname|user|password|service|sslmode)\s*="
    r"|[^/:@]+:.+@.",
    re.DOTALL,
)
SHORTEST_SECRET = 3  # of fewer characters, it is in every text by chance


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The embedded database: lrbench_caffe/lr.sqlite in the user's data directory (XDG)."""
    home = environment.get("XDG_DATA_HOME", "")
    # The XDG specification has relative paths ignored.
    data = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return data / "lrbench_caffe" / "lr.sqlite"


def resolve_url(url: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The database to use: what was given, else LRBENCH_DB, else the embedded one.

    Args:
        url: of the database, a path for SQLite, or None.

    Returns:
        A URL that names its driver: sqlite+pysqlite:///FILE or postgresql+psycopg2://...

    Raises:
        InputError: the URL is of a kind that is not supported.
    """
    given = url or environment.get(VARIABLE) or str(default_path(environment))
    scheme, separator, rest = given.partition("://")
    if not separator:
        if given.startswith("sqlite:"):
            raise InputError(_SLASHES.format(scrub_text(given)))
        if _NO_FILE.match(given):
            raise InputError(
                f"database {scrub_text(given)}: PostgreSQL is written postgresql://USER@HOST/DATABASE, "
                "a file of such a name ./NAME"
            )
        return f"sqlite+pysqlite:///{Path(given).expanduser()}"
    if scheme in _POSTGRESQL:
        return f"postgresql+psycopg2://{rest}"
    if scheme in _SQLITE:
        if not rest.startswith("/"):
            raise InputError(_SLASHES.format(safe_url(given)))
        return f"sqlite+pysqlite://{rest}"
    raise InputError(
        f"database URL {safe_url(given)}: kind {scheme!r} is not supported; allowed: {_ALLOWED}"
    )


def safe_url(url: str) -> str:
    """The URL with its passwords hidden, well-formed or not; a path as it is.

        >>> safe_url("postgresql://ada:secret@example.org/lr?sslpassword=x")
        'postgresql://ada:***@example.org/lr?sslpassword=***'

    Where a malformed URL leaves it open what belongs to the password, more is hidden, never less.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = _SECRET_OPTION.sub(rf"\1{HIDDEN}", rest)
    rest = _USER_AND_PASSWORD.sub(rf"\1:{HIDDEN}@", rest)
    if f":{HIDDEN}@" not in rest:
        rest = _NO_PORT.sub(rf"\1:{HIDDEN}", rest)
    return f"{scheme}://{rest}"


def safe_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line with the passwords of the URLs in it hidden, to be written down."""
    return [safe_url(argument) if "://" in argument else argument for argument in arguments]


def scrub(message: str, secrets: Sequence[str | None]) -> str:
    """Another library's message without the secrets that may occur in it."""
    for secret in secrets:
        if secret and len(secret) >= SHORTEST_SECRET:
            message = message.replace(secret, HIDDEN)
    return message


def scrub_text(text: str) -> str:
    """Any text without the passwords in what looks like a URL, a login or a setting in it.

    >>> scrub_text("cannot read postgresql://ada:secret@h/lr, nor bob:secret@h/lr, nor password=secret")
    'cannot read postgresql://ada:***@h/lr, nor ***@h/lr, nor password=***'
    """
    text = _URL_OR_LOGIN.sub(lambda m: safe_url(m["url"]) if m["url"] else f"{HIDDEN}@", text)
    return _PASSWORD_PAIR.sub(rf"\1{HIDDEN}", text)
