"""tools/setup, run as a program in a small copy of the repository, on a made-up machine without a network.

Its commands (apt-get, dpkg, python3) are shell scripts: tested is what tools/setup makes of what
they do.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lrbench_caffe.native import library

REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = [
    "tools/setup",
    "lrbench_caffe/__init__.py",
    "lrbench_caffe/errors.py",
    "lrbench_caffe/installation.py",
    "lrbench_caffe/native/__init__.py",
    "lrbench_caffe/native/library.py",
    "lrbench_caffe/runtime/__init__.py",
    "lrbench_caffe/runtime/cpu.py",
    "lrbench_caffe/runtime/liveness.py",
    "lrbench_caffe/runtime/faults.py",
    "lrbench_caffe/runtime/locate.py",
    *(
        f"lrbench_caffe/setup/{path.name}"
        for path in (REPOSITORY / "lrbench_caffe/setup").glob("*.py")
    ),
]
REAL_COMMANDS = ["sh", "tar", "gzip", "cat", "cp", "dirname", "mkdir", "readlink", "sleep", "touch"]

PYTHON = """\
#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
    *"import SGDSolver"*) [ -e "{machine}/python3-has-caffe" ] ;;
    *version_info*) cat "{machine}/python-version" ;;
    *"import venv, ensurepip"*) [ ! -e "{machine}/no-ensurepip" ] ;;
    *"import virtualenv"*) exit 1 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*)
        while [ -e "{machine}/slow-pip" ]; do sleep 0.02; done
        [ ! -e "{machine}/bad-pip" ] && exit 0
        echo "some context"; echo "ERROR: no matching package"; exit 1 ;;
esac
"""

APT_GET = """\
#!/bin/sh
echo "$*" >> "{log}"
work=$(dirname "$2")
case "$*" in
    indextargets*) cat "{machine}/indextargets" ;;
    *update) cat "{machine}/update" ;;
    *--print-uris*) echo "'http://mirror.invalid/caffe.deb' caffe.deb 1000000 SHA256:0" ;;
    *source*) cp "{machine}/caffe_1.orig.tar.gz" . ;;
    *--download-only*)
        touch "{machine}/downloading"
        while [ -e "{machine}/slow-apt" ]; do sleep 0.02; done
        cp "{machine}/caffe.deb" "$work/cache/archives" ;;
esac
"""

# What the fake package holds. The loader starts the program that follows its own two options.
PACKAGE = {
    "./lib/x86_64-linux-gnu/ld-2.31.so": '#!/bin/sh\nshift 3\nexec "$@"\n',
    "./usr/bin/python3.9": """\
#!/bin/sh
case "$1" in
    --version) echo "Python 3.9.2" ;;
    -c) [ -e solver.prototxt ] || echo "step" > solver.prototxt ;;
    show) echo "[$PYTHONPATH][$LD_LIBRARY_PATH][$LD_PRELOAD][$OPENBLAS_CORETYPE]$PYTHONHOME" ;;
esac
""",
    "./usr/bin/caffe": "#!/bin/sh\necho caffe version 1.0.0\n",
    "./usr/share/doc/caffe/README": "left out",
    "./usr/share/fonts/font": "kept",
}
SOURCE = {
    "tools/extra/parse_log.py": "wanted",
    "tools/caffe.cpp": "not wanted",
    "examples/mnist/lenet_solver.prototxt": "wanted",
    "examples/cifar10/cifar10_full_solver.prototxt": "wanted",
}


def write_tar(path: Path, files: dict[str, str], mode: str) -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o755, len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


class Machine:
    """A copy of the repository, a cache directory, and a PATH with made-up commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repository, self.cache, self.bin = path / "repository", path / "cache", path / "bin"
        self.log = path / "log"
        self.runtime = self.cache / "lrbench_caffe" / "caffe-runtime"
        self.venv = self.repository / ".venv"
        self.environment = {
            "PATH": str(self.bin),
            "XDG_CACHE_HOME": str(self.cache),
            "HOME": str(path),
        }
        self.bin.mkdir()
        for name in REAL_COMMANDS:
            real = shutil.which(name)
            assert real is not None
            (self.bin / name).symlink_to(real)
        self.command("python3", PYTHON.format(log=self.log, machine=path))
        self.command("apt-get", APT_GET.format(log=self.log, machine=path))
        self.command("dpkg", "#!/bin/sh\necho amd64\n")
        self.command("dpkg-deb", '#!/bin/sh\nexec cat "$2"\n')
        self.note("python-version", "3 11 0")
        self.note("indextargets", "http://mirror.invalid/debian/ bookworm main Debian Debian\n")
        self.note("update", "Reading package lists...\n")
        self.note("keyring.gpg")
        write_tar(path / "caffe.deb", PACKAGE, "w")
        write_tar(path / "caffe_1.orig.tar.gz", SOURCE, "w:gz")
        self.copy_repository()

    def copy_repository(self) -> None:
        for name in COPIED:
            target = self.repository / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
        (self.repository / "setup.py").touch()
        (self.repository / "pyproject.toml").write_text("# version 1")
        for name, old, new in (
            ("debian", "/usr/share/keyrings/debian-archive-{name}", f"{self.path}/{{name}}"),
            ("runtime", "NEEDED_MEGABYTES = 1000", "NEEDED_MEGABYTES = 1"),
        ):
            module = self.repository / "lrbench_caffe" / "setup" / f"{name}.py"
            text = module.read_text()
            assert old in text
            module.write_text(text.replace(old, new))

    def command(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def note(self, name: str, text: str = "") -> Path:
        """Write a file that the made-up commands look at."""
        path = self.path / name
        path.write_text(text)
        return path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        # -S: tools/setup may need nothing that is not in the standard library.
        return subprocess.Popen(
            [sys.executable, "-S", str(self.repository / "tools" / "setup"), *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def setup(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run tools/setup; return its exit code, output and error output."""
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def fails(self, *arguments: str, **environment: str) -> str:
        """Run tools/setup, which must fail with one line; return the line."""
        code, _, errors = self.setup(*arguments, **environment)
        assert code == 1
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        return errors.rstrip()

    def calls(self, part: str) -> int:
        """Return how many of the commands run so far contain ``part``."""
        return (
            sum(part in line for line in self.log.read_text().splitlines())
            if self.log.exists()
            else 0
        )

    def beside_runtime(self) -> set[str]:
        return {path.name for path in self.runtime.parent.iterdir()} - {"setup.lock"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# --- the command line
# ---------------------------------------------------------------------------------------


def test_help_names_every_option_and_variable(machine: Machine) -> None:
    code, output, _ = machine.setup("--help")
    assert code == 0
    for word in (
        "--python",
        "--force",
        "--only-runtime",
        "--no-venv",
        "--only-venv",
        "--no-runtime",
    ):
        assert word in output
    for word in ("LRBENCH_CAFFE_PYTHON", "LRBENCH_DEBIAN_MIRROR", "XDG_CACHE_HOME"):
        assert word in output


@pytest.mark.parametrize(
    "arguments", [["--forse"], ["--python"], ["--only-venv", "--no-venv"], ["here"]]
)
def test_bad_arguments_are_refused_before_anything_is_done(
    machine: Machine, arguments: list[str]
) -> None:
    code, _, errors = machine.setup(*arguments)
    assert code == 2
    assert "tools/setup: error: " in errors
    assert not machine.cache.exists() and not machine.venv.exists()


# --- a Caffe that is there already
# --------------------------------------------------------------------------


def test_a_named_python_with_caffe_is_used(machine: Machine) -> None:
    python = machine.command("my-python", "#!/bin/sh\nexit 0\n")
    code, output, _ = machine.setup("--only-runtime", LRBENCH_CAFFE_PYTHON=str(python))
    assert code == 0
    assert output == f"Caffe: using {python} (LRBENCH_CAFFE_PYTHON)\n"
    assert not machine.cache.exists()


def test_a_named_python_without_caffe_is_an_error(machine: Machine) -> None:
    python = machine.command("my-python", "#!/bin/sh\nexit 1\n")
    assert "cannot import caffe" in machine.fails(
        "--only-runtime", LRBENCH_CAFFE_PYTHON=str(python)
    )
    assert "does not exist" in machine.fails("--only-runtime", LRBENCH_CAFFE_PYTHON="/nonexistent")


def test_the_caffe_of_python3_is_used(machine: Machine) -> None:
    machine.note("python3-has-caffe")
    code, output, _ = machine.setup("--only-runtime")
    assert code == 0
    assert output == f"Caffe: using {machine.bin}/python3 (on the PATH)\n"
    assert not machine.cache.exists()


# --- the runtime
# --------------------------------------------------------------------------------------------


def test_runtime_is_made_once(machine: Machine) -> None:
    code, output, errors = machine.setup("--only-runtime")
    assert (code, errors) == (0, "")
    assert "downloading 1 packages (1 MB)" in output
    assert f"ready in {machine.runtime} (Caffe 1.0.0, Python 3.9.2" in output
    assert machine.beside_runtime() == {"caffe-runtime"}

    code, output, _ = machine.setup("--only-runtime")
    assert code == 0 and output.startswith(
        f"Caffe: ready in {machine.runtime}\nfast layers: not built; "
    )
    assert machine.calls("update") == 1

    assert machine.setup("--only-runtime", "--force")[0] == 0
    assert machine.calls("update") == 2
    assert machine.beside_runtime() == {"caffe-runtime"}


@pytest.mark.skipif(library.lacking_of_machine() is not None, reason="no fast layers on this CPU")
def test_fast_layers_that_work_need_no_compiler(machine: Machine) -> None:
    assert (
        "fast layers: not built; Caffe's own layers are used: there is no g++"
        in machine.setup("--only-runtime")[1]
    )
    ask = (
        "from lrbench_caffe.native.library import WIDTHS, library_path\n"
        "for width in WIDTHS: print(library_path(width))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=machine.repository,
        env=machine.environment,
        capture_output=True,
        check=True,
        text=True,
    )
    wide, narrow = map(Path, asked.stdout.splitlines())
    for variable, lacking in (
        ("g++ -m64", "there is no g++"),
        ("/no/compiler '-D A=1'", "there is no /no/compiler"),
        ("g++ '", "CXX does not name a command: g++ '"),
        (" ", "CXX does not name a command:"),
    ):
        assert (
            f"Caffe's own layers are used: {lacking}"
            in machine.setup("--only-runtime", CXX=variable)[1]
        )
    narrow.parent.mkdir()
    narrow.touch()
    assert "there is no g++" in machine.setup("--only-runtime")[1]  # one of two is not enough
    wide.touch()
    assert "fast layers: ready\n" in machine.setup("--only-runtime")[1]

    (machine.runtime / "root" / "usr" / "bin" / "python3.9").write_text("#!/bin/sh\nexit 1\n")
    assert "there is no g++" in machine.setup("--only-runtime")[1]


def test_runtime_holds_what_is_wanted(machine: Machine) -> None:
    machine.setup("--only-runtime")
    files = {
        str(path.relative_to(machine.runtime))
        for path in machine.runtime.rglob("*")
        if path.is_file()
    }
    assert files == {
        "python",
        "caffe",
        "runtime.json",
        "root/lib/x86_64-linux-gnu/ld-2.31.so",
        "root/usr/bin/python3.9",
        "root/usr/bin/caffe",
        "root/usr/share/fonts/font",
        "source/tools/extra/parse_log.py",
        "source/examples/mnist/lenet_solver.prototxt",
        "source/examples/cifar10/cifar10_full_solver.prototxt",
    }


def test_launchers_can_be_moved_and_let_nothing_in(machine: Machine, tmp_path: Path) -> None:
    machine.setup("--only-runtime")
    moved = tmp_path / "another place"
    machine.runtime.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(moved / "python")
    environment = {
        **machine.environment,
        **dict.fromkeys(("PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"), "/elsewhere"),
        "OPENBLAS_CORETYPE": "Haswell",
    }

    def shown(**more: str) -> str:
        command, variables = [str(link), "show"], {**environment, **more}
        return subprocess.run(
            command, env=variables, cwd="/", stdout=subprocess.PIPE, text=True
        ).stdout

    assert shown() == shown(PYTHONPATH="") == f"[][][][Haswell]{moved}/root/usr\n"
    # What comes first on the PYTHONPATH is found first: the runtime's own, then the user's.
    lib = moved / "root" / "usr" / "lib"
    own = f"{lib}/python3.9:{lib}/python3.9/lib-dynload:{lib}/python3/dist-packages"
    assert shown(PYTHONPATH="/a b:/c").startswith(f"[{own}:/a b:/c][]")


def test_launchers_of_an_earlier_setup_are_rewritten(machine: Machine) -> None:
    machine.setup("--only-runtime")
    stamp = machine.runtime / "runtime.json"
    launchers = [machine.runtime / "python", machine.runtime / "caffe"]
    stamp.write_text(json.dumps({"made_from": "aaf357097854f365"}))  # when they were a part of it
    google = machine.runtime / "root/usr/lib/python3/dist-packages/google"
    google.mkdir(parents=True)
    texts = [launcher.read_text() for launcher in launchers]
    launchers[0].write_text("#!/bin/sh\nexit 1\n")
    code, output, errors = machine.setup("--only-runtime")
    assert (code, errors) == (0, "")
    assert output.startswith(f"Caffe: ready in {machine.runtime}\n")
    assert [launcher.read_text() for launcher in launchers] == texts
    assert all(os.access(launcher, os.X_OK) for launcher in launchers)
    assert [path.name for path in google.iterdir()] == ["__init__.py"]
    files = [*launchers, google / "__init__.py"]
    before = [file.stat().st_ino for file in files]
    machine.setup("--only-runtime")
    assert [file.stat().st_ino for file in files] == before  # what is right is left as it is
    assert machine.calls("update") == 1


def test_runtime_of_an_older_recipe_is_made_anew(machine: Machine) -> None:
    machine.setup("--only-runtime")
    stamp = machine.runtime / "runtime.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "made_from": "another"}))
    machine.setup("--only-runtime")
    assert machine.calls("update") == 2


def test_apt_is_told_to_verify_and_to_leave_the_machine_alone(machine: Machine) -> None:
    machine.command(
        "apt-get",
        (machine.bin / "apt-get").read_text() + f'cp "$2" "$work/sources.list" "{machine.path}"\n',
    )
    machine.setup("--only-runtime", LRBENCH_DEBIAN_MIRROR="http://other.invalid/debian")
    keyring = f"{machine.path}/keyring.gpg"
    assert (machine.path / "sources.list").read_text() == (
        f"deb [arch=amd64 target=Packages signed-by={keyring}] http://other.invalid/debian bullseye main\n"
        f"deb-src [target=Sources signed-by={keyring}] http://other.invalid/debian bullseye main\n"
    )
    configuration = (machine.path / "apt.conf").read_text()
    assert 'AllowUnauthenticated "false"' in configuration
    assert 'AllowInsecureRepositories "false"' in configuration
    for setting in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        assert f'{setting} "{machine.cache}/' in configuration
    assert machine.calls("allow-unauthenticated") == 0


@pytest.mark.parametrize("tool", ["apt-get", "dpkg", "dpkg-deb", "tar"])
def test_missing_tool(machine: Machine, tool: str) -> None:
    (machine.bin / tool).unlink()
    line = machine.fails("--only-runtime")
    assert f"{tool} is not on this machine" in line and "LRBENCH_CAFFE_PYTHON" in line


def test_missing_keyring(machine: Machine) -> None:
    (machine.path / "keyring.gpg").unlink()
    assert "install the package debian-archive-keyring" in machine.fails("--only-runtime")


def test_unsupported_architecture(machine: Machine) -> None:
    machine.command("dpkg", "#!/bin/sh\necho riscv64\n")
    assert "architecture riscv64 is not supported (only amd64, arm64)" in machine.fails(
        "--only-runtime"
    )


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "http://mirror.invalid/ubuntu/ noble main Ubuntu Ubuntu\n",
        "http://mirror.invalid/debian-security/ bookworm-security main Debian Debian-Security\n",
        "http://mirror.invalid/chrome/deb/ stable main Vendor Vendor\n",
    ],
)
def test_no_debian_archive_in_apts_settings(machine: Machine, listing: str) -> None:
    machine.note("indextargets", listing)
    assert "set LRBENCH_DEBIAN_MIRROR" in machine.fails("--only-runtime")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "W: Failed to fetch http://mirror.invalid/InRelease  Could not resolve\n",
            "Could not resolve",
        ),
        ("W: GPG error: bullseye InRelease: signatures were invalid: BADSIG 0\n", "BADSIG"),
        ("E: The repository 'bullseye Release' is not signed.\n", "is not signed"),
        (
            "W: Failed to fetch InRelease  write (28: No space left on device)\n",
            "no space left on the disk",
        ),
    ],
)
def test_archive_that_cannot_be_read_or_verified(
    machine: Machine, said: str, expected: str
) -> None:
    machine.note("update", f"Err:1 http://mirror.invalid bullseye InRelease\n{said}")
    assert expected in machine.fails("--only-runtime")
    assert machine.beside_runtime() == set()


def test_runtime_that_fails_its_check_is_not_kept(machine: Machine) -> None:
    broken = {**PACKAGE, "./usr/bin/python3.9": "#!/bin/sh\necho cannot train >&2\nexit 3\n"}
    write_tar(machine.path / "caffe.deb", broken, "w")
    assert machine.fails("--only-runtime").endswith("failed: cannot train")
    assert machine.beside_runtime() == set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_download_leaves_nothing(
    machine: Machine, number: signal.Signals, code: int
) -> None:
    slow = machine.note("slow-apt")
    process = machine.start("--only-runtime")
    wait_for((machine.path / "downloading").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == "interrupted; run tools/setup again to continue\n"
    assert machine.beside_runtime() == set()
    slow.unlink()
    assert machine.setup("--only-runtime")[0] == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_was_downloaded_is_kept_for_the_next_time(
    machine: Machine, end: signal.Signals
) -> None:
    """Of two packages, both on disk when setup ends; one is damaged afterwards and is fetched again."""
    (machine.path / "caffe.deb").rename(machine.path / "a.deb")
    # They share nothing: both are unpacked at once, and these have no entries for their folders.
    write_tar(machine.path / "b.deb", {"./of-b": ""}, "w")
    a, b = (
        hashlib.sha256((machine.path / name).read_bytes()).hexdigest()
        for name in ("a.deb", "b.deb")
    )
    fetching = (machine.bin / "apt-get").read_text()
    planned = "echo \"'http://mirror.invalid/caffe.deb' caffe.deb 1000000 SHA256:0\" ;;"
    arrived = f'touch "{machine.path}/downloading"'
    for old, new in (
        (
            planned,
            f"echo \"'u:a' a.deb 9 SHA256:{a}\"; echo \"'u:b' b.deb 9 SHA256:{b}\" ;;",
        ),
        (
            arrived,
            f"""(cd "$work/cache/archives" && echo *.deb partial/*.deb) > "{machine.path}/had"
        for name in a b; do cp "{machine.path}/$name.deb" "$work/cache/archives"; done
        echo begun > "$work/cache/archives/partial/b.deb"
        {arrived}""",
        ),
        (f'cp "{machine.path}/caffe.deb" "$work/cache/archives" ;;', ";;"),
    ):
        assert old in fetching
        fetching = fetching.replace(old, new)
    machine.command("apt-get", fetching)
    slow = machine.note("slow-apt")
    process = machine.start("--only-runtime")
    wait_for((machine.path / "downloading").exists)
    process.send_signal(end)
    process.communicate(timeout=30)
    (archives,) = (path.parent for path in machine.runtime.parent.rglob("a.deb"))
    assert (archives == machine.runtime.parent / "caffe-packages") == (end == signal.SIGINT)
    (archives / "b.deb").write_text("damaged")
    slow.unlink()
    assert machine.setup("--only-runtime")[0] == 0
    assert (machine.path / "had").read_text() == "a.deb partial/b.deb\n"
    assert machine.beside_runtime() == {"caffe-runtime"}


def test_after_a_kill_the_next_one_waits_for_the_orphans_and_starts_anew(machine: Machine) -> None:
    slow = machine.note("slow-apt")
    killed = machine.start("--only-runtime")
    wait_for((machine.path / "downloading").exists)
    killed.kill()
    killed.communicate(timeout=30)
    assert len(machine.beside_runtime()) == 1
    following = machine.start("--only-runtime")
    assert following.stdout is not None
    assert following.stdout.readline() == "Caffe: another tools/setup is running; waiting for it\n"
    slow.unlink()
    following.communicate(timeout=30)
    assert following.returncode == 0
    assert machine.beside_runtime() == {"caffe-runtime"}


def test_of_two_at_once_one_works(machine: Machine) -> None:
    slow = machine.note("slow-apt")
    first = machine.start("--only-runtime")
    wait_for((machine.path / "downloading").exists)
    second = machine.start("--only-runtime")
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    slow.unlink()
    for process in (first, second):
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert machine.calls("update") == 1


# --- the virtual environment
# --------------------------------------------------------------------------------


def test_venv_is_made_once(machine: Machine) -> None:
    code, output, errors = machine.setup("--only-venv")
    assert (code, errors) == (0, "")
    assert f"creating it with {machine.bin}/python3 (Python 3.11.0)" in output
    assert machine.calls("--editable .[test,docs]") == 1
    code, output, _ = machine.setup("--only-venv")
    assert (code, output) == (0, f".venv: ready in {machine.venv}\n")
    assert machine.calls("-m pip") == 1


def test_changed_dependencies_are_installed_into_it(machine: Machine) -> None:
    machine.setup("--only-venv")
    (machine.repository / "pyproject.toml").write_text("# version 2")
    machine.setup("--only-venv")
    assert (machine.calls("-m venv"), machine.calls("-m pip")) == (1, 2)


def test_venv_is_made_anew_for_another_python_and_in_a_moved_repository(machine: Machine) -> None:
    machine.setup("--only-venv")
    other = machine.command("python3.9", (machine.bin / "python3").read_text())
    machine.setup("--only-venv", "--python", str(other))
    assert machine.calls("-m venv") == 2
    machine.setup("--only-venv")  # no Python named: that one stays
    assert machine.calls("-m venv") == 2
    machine.repository = machine.repository.rename(machine.path / "moved")
    machine.setup("--only-venv")
    assert machine.calls("-m venv") == 3


def test_a_venv_of_the_users_own_is_installed_into_and_never_deleted(machine: Machine) -> None:
    python = machine.venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(machine.bin / "python3", python)
    precious = machine.venv / "precious"
    precious.touch()
    for arguments in ([], ["--force"], ["--python", f"{machine.bin}/python3"]):
        assert machine.setup("--only-venv", *arguments)[0] == 0
        assert precious.exists()
    assert machine.calls("-m venv") == 0
    python.unlink()
    assert "is not a working virtual environment" in machine.fails("--only-venv", "--force")
    assert precious.exists()


def test_interrupted_venv_is_made_anew(machine: Machine) -> None:
    slow = machine.note("slow-pip")
    process = machine.start("--only-venv")
    wait_for(lambda: machine.calls("-m pip") == 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    slow.unlink()
    assert machine.setup("--only-venv")[0] == 0
    assert machine.calls("-m venv") == 2
    assert sorted(path.name for path in machine.repository.glob(".venv*")) == [".venv"]


def test_what_a_killed_pip_leaves_is_removed(machine: Machine) -> None:
    slow = machine.note("slow-pip")
    process = machine.start("--only-venv")
    wait_for(lambda: machine.calls("-m pip") == 1)
    process.kill()
    process.communicate(timeout=30)
    assert len(list(machine.repository.glob(".venv.*"))) == 1
    slow.unlink()
    assert machine.setup("--only-venv")[0] == 0
    assert [path.name for path in machine.repository.glob(".venv*")] == [".venv"]


def test_what_pip_says_is_shown_when_it_fails(machine: Machine) -> None:
    machine.note("bad-pip")
    code, _, errors = machine.setup("--only-venv")
    assert code == 1
    assert "some context\n" in errors
    assert errors.splitlines()[-1].endswith("failed: ERROR: no matching package")


def test_pythons_that_do_not_serve(machine: Machine) -> None:
    assert "/nonexistent does not exist" in machine.fails("--only-venv", "--python", "/nonexistent")
    machine.note("no-ensurepip")
    assert "install python3-venv, virtualenv or uv" in machine.fails("--only-venv")
    machine.note("python-version", "3 8 10")
    assert "is Python 3.8.10, but 3.9 or newer is needed" in machine.fails("--only-venv")
    (machine.bin / "python3").unlink()
    assert "python3 does not exist" in machine.fails("--only-venv")


@pytest.mark.parametrize("version", ["3.7", "3.8"])
def test_a_python_that_is_too_old_for_the_program_is_not_for_setup(
    machine: Machine, version: str
) -> None:
    """It runs the script itself; there is one on the PATH or of pyenv, or the test is skipped."""
    places = [
        shutil.which(f"python{version}"),
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
    ]
    runs = [
        p
        for p in places
        if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0
    ]
    if not runs:
        pytest.skip(f"there is no Python {version}")
    command = [runs[0], "-S", str(machine.repository / "tools" / "setup")]
    done = subprocess.run(
        command, env=machine.environment, capture_output=True, text=True, timeout=60
    )
    if version == "3.7":
        assert done.returncode == 1
        assert done.stderr.startswith("error: tools/setup itself needs Python 3.8 or newer")
        assert done.stderr.count("\n") == 1
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert f".venv: ready in {machine.venv}" in done.stdout
        assert f"Caffe: ready in {machine.runtime}" in done.stdout


def test_virtualenv_serves_where_venv_cannot(machine: Machine) -> None:
    machine.note("no-ensurepip")
    machine.command("virtualenv", f'#!/bin/sh\nexec "{machine.bin}/python3" -m venv "$3"\n')
    assert machine.setup("--only-venv")[0] == 0


# --- both ---------------------------------------------------------------------------------------------------


def test_both_are_made_and_one_failure_does_not_stop_the_other(machine: Machine) -> None:
    machine.note("bad-pip")
    code, output, errors = machine.setup()
    assert code == 1
    assert f"Caffe: ready in {machine.runtime}" in output
    assert "error: .venv: " in errors
    (machine.path / "bad-pip").unlink()
    assert machine.setup()[0] == 0
    assert os.access(machine.venv / "bin" / "python", os.X_OK)


def test_the_fast_layers_do_not_wait_for_pip(machine: Machine) -> None:
    """pip began while this setup's other thread held the runtime's lock, whose descriptor it inherited."""
    machine.command("g++", "#!/bin/sh\nexit 1\n")
    slow_apt, slow_pip = machine.note("slow-apt"), machine.note("slow-pip")
    both = machine.start()
    wait_for((machine.path / "downloading").exists)
    wait_for(lambda: machine.calls("--editable .[test,docs]") == 1)
    slow_apt.unlink()
    assert both.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("fast layers: "):
        lines.append(both.stdout.readline())
        assert lines[-1], lines
    assert "waiting" not in lines[-1]
    assert not any(line.startswith(".venv: ready") for line in lines)
    slow_pip.unlink()
    both.communicate(timeout=30)
    assert both.returncode == 0
