"""Names that terminals, pictures, tables and formulas could obey: nothing of a training depends on a name."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from chaoslab import results
from chaoslab.lab import Reference, command
from chaoslab.registry import scenario
from chaoslab.setups import SETUPS
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, REFUSED, Wrong

NAMES = (
    b"Net[/x]", b"LeNet [v2]", b"[bold red]b[/]", b"$x$ $y_1", b"$\\frac{$", b"\\input", b"=1+2", b"+1+2",
    b"@SUM(A1)", b"-1-2", b"\t=1", b"\x1b[31mred\x1b[0m", b"\x1b]0;title\x07", b"two\nlines", b"back\rto",
    b"<script>x</script>", b"<!-- & -->", b"&amp;", b"]]>", b"a|b", b"*b* _i_ `c` ~s~", b"[l](http://x)",
    b"# h", b"caf\xe9", b"\xff\xfe", b"\xc3", "名前".encode(), "e\u0301".encode(), "\u202ertl".encode(),
    "\u2028".encode(), b"%s %d %(x)s", b"{0} {x} {", b"'; DROP TABLE run; --", b'"q"', b"a,b;c", b"n" * 300,
    b" ", b".", b"0", b"None", b"nan", b"true", b"--out", b"~", b"\x01\x02", b"\x7f", b"\xc2\x85",
)  # fmt: skip
SECONDS = 5.0
# What a terminal obeys; line ends and tabs are ours.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@")


@scenario("hostile-names", weight=2)
def hostile_names(trial: Trial) -> str:
    """Train with names like markup, formulas, escapes or no UTF-8, and show the run in every form."""
    reference = trial.furnish(SETUPS["plain"])
    out = rename(trial)
    args = ("--layers", "stock", *reference.setup.flags)
    trained = trial.run(
        command("train", solver_of(trial), f"--out={out}", *args), reference.seconds
    )
    if not is_utf8(out):  # Caffe's prototxts, which name the folder, are UTF-8
        trained.refusal()
        return REFUSED
    trained.success()
    check_results(reference, trial.folder / out)
    check_shown(trained.out)
    for name in trial.rng.sample(sorted(LOOKS), 3):
        look, check = LOOKS[name]
        done = trial.run(
            command(*(part.format(out=out, solver=solver_of(trial)) for part in look)), SECONDS
        )
        done.success()
        check_shown(done.out)
        check(trial)
    return EQUAL


def rename(trial: Trial) -> str:
    """Give the net, and some of its layers, scores, files and folders, such names; returns the run's name."""
    net = (trial.folder / "net.prototxt").read_bytes()
    rng = trial.rng
    net = net.replace(b'name: "tiny"', b'name: "' + quoted(rng.choice(NAMES)) + b'"', 1)
    for layer in rng.sample((b"digits", b"ip1", b"ip1_relu", b"loss"), rng.randrange(3)):
        net = net.replace(b'name: "' + layer + b'"', b'name: "' + quoted(rng.choice(NAMES)) + b'"')
    if rng.random() < 0.5:
        scores = quoted(rng.choice(NAMES))
        net = re.sub(rb'(top|bottom): "ip2"', lambda found: found[1] + b': "' + scores + b'"', net)
    (trial.folder / "net.prototxt").write_bytes(net)
    if rng.random() < 0.5:
        data = rng.choice([name for name in NAMES if b"/" not in name and name not in (b".", b" ")])
        (trial.folder / os.fsdecode(data[:100])).symlink_to(trial.lab.data)
        net = net.replace(b'source: "data/', b'source: "' + quoted(data[:100]) + b"/")
        (trial.folder / "net.prototxt").write_bytes(net)
    if rng.random() < 0.5:
        name = os.fsdecode(file_name(trial)) + ".prototxt"
        (trial.folder / "solver.prototxt").rename(trial.folder / name)
    out = os.fsdecode(file_name(trial)) if rng.random() < 0.5 else "out"
    trial.note(f"{solver_of(trial)!r} {out!r} {net[:60]!r}")
    return "./" + out


def file_name(trial: Trial) -> bytes:
    """One of the names, as far as files can have it."""
    good = [name[:100] for name in NAMES if b"/" not in name and name not in (b".", b" ")]
    return trial.rng.choice(good)


def solver_of(trial: Trial) -> str:
    return next(
        f"./{path.name}" for path in trial.folder.glob("*.prototxt") if path.name != "net.prototxt"
    )


def quoted(name: bytes) -> bytes:
    """For the inside of a string of a prototxt."""
    return b"".join(
        b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes([byte]) for byte in name
    )


def is_utf8(name: str) -> bool:
    """Whether a file's name is text: bytes that are none are lone surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- looks -----------------------------------------------------------------------------------------


def check_results(reference: Reference, run: Path) -> None:
    """Check losses and tests against those of the untouched run.

    Raises:
        Wrong: they differ.
    """
    wanted, found = results.read_run(reference.run), results.read_run(run)
    if found.losses != wanted.losses:
        raise Wrong("other losses under other names")
    plain = [
        {
            key: {**row, "outputs": list(row["outputs"].values())}
            for key, row in one.measurements.items()
        }
        for one in (wanted, found)
    ]
    if plain[0] != plain[1]:
        raise Wrong("other tests under other names")


def check_shown(text: str) -> None:
    """Check that nothing is printed that a terminal obeys.

    Raises:
        Wrong: there is.
    """
    found = CONTROL.search(text)
    if found:
        raise Wrong(
            f"{found[0]!r} is printed: {text[max(0, found.start() - 30) : found.end() + 30]!r}"
        )


def check_csv(trial: Trial) -> None:
    with (trial.folder / "look.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                if cell.startswith(FORMULA) and not is_number(cell):
                    raise Wrong(f"a cell that spreadsheets take for a formula: {cell!r}")


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def check_json(trial: Trial) -> None:
    json.loads((trial.folder / "look.json").read_text(encoding="utf-8"))


def check_svg(trial: Trial) -> None:
    ElementTree.parse(trial.folder / "look.svg")


def check_markdown(trial: Trial) -> None:
    check_shown((trial.folder / "look.md").read_text(encoding="utf-8"))


def nothing(trial: Trial) -> None:
    """The command must succeed, no more."""


LOOKS: dict[str, tuple[tuple[str, ...], Callable[[Trial], None]]] = {
    "rank": (("rank", "{solver}"), nothing),
    "tasks": (("rank",), nothing),
    "csv": (("rank", "{solver}", "--format", "csv", "--out", "look.csv"), check_csv),
    "markdown": (("rank", "{solver}", "--format", "markdown", "--out", "look.md"), check_markdown),
    "json": (("rank", "{solver}", "--format", "json", "--out", "look.json"), check_json),
    "runs": (("db", "runs"), nothing),
    "info": (("db", "info"), nothing),
    "tasks of db": (("db", "tasks"), nothing),
    "recommend": (("recommend", "{solver}"), nothing),
    "svg": (("plot", "runs", "{out}", "--out", "look.svg"), check_svg),
    "pdf": (("plot", "runs", "{out}", "--out", "look.pdf"), nothing),
    "table": (("rank", "{solver}", "--plot", "look.svg"), check_svg),
    "sync": (("db", "--db", "sqlite:///other.sqlite", "sync", "{out}"), nothing),
    "export": (("db", "export", "all.jsonl"), nothing),
    "merge": (("db", "--db", "sqlite:///other.sqlite", "merge", "lr.sqlite"), nothing),
    "backup": (("db", "backup", "copy.sqlite"), nothing),
}
