"""Debian 11's packages: fetched with an apt state of our own, verified, unpacked, never installed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe.setup.processes import (
    APT_PROBLEM,
    NO_SPACE,
    SetupError,
    last_words,
    no_space,
    run,
)
from lrbench_caffe.setup.progress import counting, say

RELEASE = "bullseye"  # Debian 11, the last Debian that carries Caffe
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
KEYRINGS = [f"/usr/share/keyrings/debian-archive-{name}" for name in ("keyring.gpg", "keyring.pgp")]
# Of usr/share:
LEFT_OUT = ["doc", "doc-base", "man", "info", "lintian", "locale", "icons", "bug", "gtk-doc"]
OWN_CAFFE = "set LRBENCH_CAFFE_PYTHON to a Python that can import caffe"

CONFIGURATION = """
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Default-Release "";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
"""


# -- the machine -----------------------------------------------------------------------------------


def architecture() -> str:
    """Return this machine's architecture in Debian's words.

    Raises:
        SetupError: Debian 11 has no Caffe for it that we can start.
    """
    name = run(["dpkg", "--print-architecture"]).stdout.strip()
    if name not in TRIPLETS:
        supported = ", ".join(TRIPLETS)
        raise SetupError(f"architecture {name} is not supported (only {supported}); {OWN_CAFFE}")
    return name


def require_tools() -> str:
    """Check for the tools that unpack Debian packages; return the keyring to verify them with."""
    for tool in ("apt-get", "dpkg", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise SetupError(
                f"{tool} is not on this machine, so Caffe cannot be fetched; {OWN_CAFFE}"
            )
    for keyring in KEYRINGS:
        if os.path.exists(keyring):
            return keyring
    raise SetupError(
        f"{KEYRINGS[0]} is missing; install the package debian-archive-keyring, or {OWN_CAFFE}"
    )


def mirror() -> str:
    """Return the URI of the Debian archive that this machine uses itself, or LRBENCH_DEBIAN_MIRROR."""
    named = os.environ.get("LRBENCH_DEBIAN_MIRROR")
    if named:
        # The two are the same, but of file: apt would not put a copy where we look for it.
        return re.sub("^file:", "copy:", named)
    # What a source offers is known once its index was fetched; a fresh image of Debian has fetched
    # none yet. Beside Debian's own there may be any vendor's, so that the name of the path has to
    # do then.
    for known, pattern in (
        ([], r"^(\S+) [^\s-]+ main Debian Debian$"),
        (["--no-release-info"], r"^(\S+/debian/?) [^\s-]+ main\b"),
    ):
        wanted = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(LABEL)"
        command = ["apt-get", "indextargets", *known, "--format", wanted, "Created-By: Packages"]
        for uri in re.findall(pattern, run(command).stdout, re.MULTILINE):
            if not uri.startswith("cdrom:"):
                return str(uri)
    raise SetupError(
        "this machine's apt has no Debian archive; set LRBENCH_DEBIAN_MIRROR to the URI of one"
    )


# -- fetching --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Apt:
    """An apt of our own, below ``work``, that knows Debian 11 main and no installed package.

    Attributes:
        work: the folder of its state; what it fetches is below.
        mirror: the URI of the archive.
        arch: the architecture, in Debian's words.
    """

    work: Path
    mirror: str
    arch: str

    @classmethod
    def below(cls, work: Path) -> Apt:
        """Lay out its state for this machine, and read the archive's index.

        Its configuration is read after the machine's own: proxies and mirrors' credentials stay,
        whatever else could interfere goes.

        Raises:
            SetupError: a tool is missing, or the archive cannot be read or verified.
        """
        keyring, arch = require_tools(), architecture()
        apt = cls(work, mirror(), arch)
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (work / directory).mkdir(parents=True)
        (work / "status").touch()
        origin = f"signed-by={keyring}] {apt.mirror} {RELEASE} main"
        (work / "sources.list").write_text(
            f"deb [arch={arch} target=Packages {origin}\ndeb-src [target=Sources {origin}\n"
        )
        (work / "apt.conf").write_text(CONFIGURATION.format(work=work, arch=arch))
        apt._read_index()
        return apt

    @property
    def archives(self) -> Path:
        """The folder that ``fetch`` puts packages into."""
        return self.work / "cache" / "archives"

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get; return what it prints."""
        return run(self._command(*arguments), cwd=cwd, env=_environment()).stdout

    def _command(self, *arguments: str) -> list[str]:
        return ["apt-get", "-c", str(self.work / "apt.conf"), "-q", *arguments]

    def _read_index(self) -> None:
        done = run(self._command("update"), env=_environment(), check=False)
        # apt counts an index that it could not fetch as a warning, and uses none; for us it is the
        # end.
        if done.returncode == 0 and not APT_PROBLEM.search(done.stdout):
            return
        if NO_SPACE.search(done.stdout):
            raise SetupError(no_space(self.work))
        why = last_words(done.stdout, done.returncode)
        raise SetupError(
            f"Debian {RELEASE} cannot be read from {self.mirror} (LRBENCH_DEBIAN_MIRROR names another): {why}"
        )

    def fetch(self, subject: str, packages: list[str], kept: Path) -> list[Path]:
        """Fetch packages with all that they depend on.

        Args:
            subject: what lines about it begin with.
            packages: their names.
            kept: where what has arrived waits for the next setup when this one is interrupted.

        Returns:
            the files.
        """
        install = ["--no-install-recommends", "--yes", "install"]
        planned = self.run(*install, "-q", "--print-uris", *packages)
        line = re.compile(r"^'[^']+' (\S+\.deb) (\d+) (?:SHA256:)?(\S*)$", re.MULTILINE)
        wanted = {name: (int(size), sha256) for name, size, sha256 in line.findall(planned)}
        total = sum(size for size, _ in wanted.values())
        self._adopt(kept, {name: sha256 for name, (_, sha256) in wanted.items()})
        say(
            subject,
            f"downloading {len(wanted)} packages ({total / 1e6:.0f} MB) of Debian {RELEASE} "
            f"from {self.mirror}",
        )
        with _keeping(self.archives, kept), counting(subject, self.archives, total):
            self.run(*install, "--download-only", *packages, cwd=self.work)
        files = sorted(self.archives.glob("*.deb"))
        if not wanted or len(files) != len(wanted):
            raise SetupError(
                f"apt-get fetched {len(files)} of {len(wanted)} packages from {self.mirror}"
            )
        return files

    def _adopt(self, kept: Path, digests: dict[str, str]) -> None:
        """Move what an earlier setup has fetched to where apt looks for it.

        For a complete file apt compares only the size, so its digest is compared here. For one that
        is not complete it fetches the rest, and verifies the whole.
        """
        for package in kept.glob("*.deb"):
            if hashlib.sha256(package.read_bytes()).hexdigest() == digests.get(package.name):
                package.rename(self.archives / package.name)
        for part in (kept / "partial").glob("*.deb"):
            if part.name in digests:
                part.rename(self.archives / "partial" / part.name)
        shutil.rmtree(kept, ignore_errors=True)


@contextlib.contextmanager
def _keeping(archives: Path, kept: Path) -> Iterator[None]:
    """Keep what has been fetched when the block fails."""
    try:
        yield
    except BaseException:
        keep_packages(archives, kept)
        raise


def keep_packages(archives: Path, kept: Path) -> None:
    """Move packages, complete or not, from where apt has put them to where the next setup finds them."""
    for path in (*archives.glob("*.deb"), *archives.glob("partial/*.deb")):
        target = kept / path.relative_to(archives)
        with contextlib.suppress(OSError):  # what cannot be kept is fetched again
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    environment.pop("APT_CONFIG", None)
    return environment


# -- unpacking -------------------------------------------------------------------------------------


def unpack(packages: list[Path], root: Path) -> None:
    """Unpack packages into the folder ``root`` without installing them, deleting each when done."""
    root.mkdir()
    excludes = [f"--exclude=./usr/share/{name}/*" for name in LEFT_OUT]
    owner = ["--no-same-owner", "--no-same-permissions"]
    tar = shlex.join(["tar", "-x", "-C", str(root), *owner, *excludes])

    def unpack_one(package: Path) -> None:
        # The status is tar's, which also fails when dpkg-deb ends early. What is read was verified
        # by apt.
        script = f"dpkg-deb --fsys-tarfile {shlex.quote(str(package))} | {tar}"
        run(["sh", "-c", script], cwd=root)
        package.unlink()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(unpack_one, packages):
            pass
