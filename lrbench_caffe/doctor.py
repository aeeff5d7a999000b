"""Show which Caffe is found, what it can do, and how to fix what is missing.

python -m lrbench_caffe.doctor
python -m lrbench_caffe.doctor --caffe-python /opt/caffe-env/bin/python
python -m lrbench_caffe.doctor --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from lrbench_caffe.setup.findings import Finding, examine
from lrbench_caffe.terminal import cli, flags
from lrbench_caffe.terminal.console import Console


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.doctor", description=__doc__)
    flags.add_caffe_python(p)
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args: argparse.Namespace = parser().parse_args(argv)
    findings: list[Finding] = []
    console = Console()
    for finding in examine(args.caffe_python):
        findings.append(finding)
        if not args.json:
            _print(console, finding)  # at once: to look takes seconds
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    return 1 if any(finding.fatal for finding in findings) else 0


def _print(console: Console, finding: Finding) -> None:
    mark = "ok" if finding.remedy is None else "NO" if finding.fatal else "!!"
    line = f"{mark}  {finding.name + ':':<17} {finding.value}"
    console.say(line)
    if finding.remedy:
        console.say(f"    -> {finding.remedy}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
