"""A PostgreSQL server of one's own: made in a temporary folder, ended with the process that started it."""

from __future__ import annotations

import ctypes
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg2

USER = "lrbench"
PASSWORD = "p@ss/w:rd ?#%&=ü"  # every character that a URL has a use for
START_SECONDS = 60
_PR_SET_PDEATHSIG = 1


class NoServer(Exception):
    """PostgreSQL's programs are not on this machine, or cannot run."""


def binaries() -> Path:
    """The folder with initdb and postgres, of the newest version.

    Raises:
        NoServer: there is none.
    """
    for folder in _folders():
        # What lies on the PATH may be a link; the server looks for its parts beside the real file.
        found = folder / "initdb"
        if found.exists() and (found.resolve().parent / "postgres").exists():
            return found.resolve().parent
    raise NoServer("no PostgreSQL server on this machine; tools/install_postgresql installs one")


def _folders() -> Iterator[Path]:
    versions = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    yield from sorted(map(Path, versions), key=_version, reverse=True)
    if shutil.which("pg_config"):
        run = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        yield Path(run.stdout.strip())
    found = shutil.which("initdb")
    if found:
        yield Path(found).parent


def _version(path: Path) -> float:
    digits = "".join(c for c in path.parent.name if c.isdigit() or c == ".")
    return float(digits or 0)


class Server:
    """A server on a random port of the loopback interface, with one user, whose password it asks for.

    Args:
        fsync: False for tests: a server that is killed loses nothing without it, only a machine
            would.
    """

    def __init__(self, fsync: bool = False) -> None:
        self.bin = binaries()
        self.fsync = fsync
        self.folder = Path(tempfile.mkdtemp(prefix="lrbench-pg-", dir="/tmp"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._version = 0
        self._identity: dict[str, object] = {}
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise

    def _initialise(self) -> None:
        word = self.folder / "password"
        word.write_text(PASSWORD, encoding="utf-8")
        if os.geteuid() == 0:
            # The server refuses to run as root.
            account = _account()
            self._identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for path in (self.folder, word):
                os.chown(path, account.pw_uid, account.pw_gid)
        command = [
            self.bin / "initdb", "--pgdata", self.folder / "data", "--username", USER, "--pwfile", word,
            "--auth-host", "scram-sha-256", "--auth-local", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync",
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, cwd="/", **self._identity)  # type: ignore[call-overload]
        if run.returncode:
            raise NoServer(f"initdb failed: {run.stderr.strip()}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 100,
            "unix_socket_directories": self.folder, "fsync": "on" if self.fsync else "off",
            "shared_buffers": "256MB" if self.fsync else "64MB", "logging_collector": "off",
        }  # fmt: skip
        command = [self.bin / "postgres", "-D", self.folder / "data"]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                preexec_fn=_end_with_parent, start_new_session=True, **self._identity,
            )  # type: ignore[call-overload]  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoServer(
                    f"postgres did not start: {(self.folder / 'log').read_text()[-500:]}"
                )
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with closing(self._connect("postgres")) as connection:
                self._version = connection.server_version
        except psycopg2.OperationalError:
            return False
        return True

    @property
    def pid(self) -> int:
        """The server's first process, parent of the others."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT disconnects its clients and closes down, SIGQUIT is as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- databases ------------------------------------------------------------------------------

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str | None = None, encoding: str | None = None) -> str:
        """Make a database, a copy of another one or of another encoding where asked for; returns its name.

        It sorts text as people do (by ICU where the server has it), which must not change what we
        export.
        """
        name = f"lr_{secrets.token_hex(6)}"
        if template:
            # From PostgreSQL 15 on it would log each page; to copy the files takes two thirds of that.
            strategy = " STRATEGY file_copy" if self._version >= 150000 else ""
            self._execute(f"CREATE DATABASE {name} TEMPLATE {template}{strategy}")
            return name
        if encoding:
            self._execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
            )
            return name
        try:
            self._execute(
                f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
            )
        except psycopg2.Error:
            self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def drop_connections(self) -> None:
        """End all connections, as an administrator would, or a network that breaks."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )

    def _connect(self, database: str) -> psycopg2.extensions.connection:
        """As its administrator: over its socket, where it asks for no password, whose check takes time."""
        return psycopg2.connect(
            host=str(self.folder), port=self.port, user=USER, dbname=database, connect_timeout=5
        )

    def execute(self, database: str, statement: str) -> None:
        """Run a statement past everything of ours."""
        self._execute(statement, database)

    def _execute(self, statement: str, database: str = "postgres") -> None:
        connection = self._connect(database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoServer("the server cannot run as root, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """In the server before it starts: have the kernel end it should its parent be killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
