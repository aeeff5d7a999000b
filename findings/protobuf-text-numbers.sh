#!/bin/sh
# protobuf's text format has two parsers that disagree on numbers. Python's (text_format.Parse) takes 4_0, 0b101,
# 0o17 and +5, as int() does; the C++ one, which programs such as Caffe use, refuses them. The C++ one takes a
# blank behind a minus sign and a bool with leading zeros, which Python's refuses. So a file that a Python tool
# has read and found right may be refused by the program that it is for, and the other way round.
set -eu
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check protobuf==6.33.1 grpcio-tools==1.76.0 setuptools==80.9.0
cat >numbers.proto <<'PROTO'
syntax = "proto2";
message Numbers { optional int32 whole = 1; optional float real = 2; optional bool flag = 3; }
PROTO
env/bin/python -m grpc_tools.protoc -I. --python_out=. numbers.proto
cat >compare.py <<'PYTHON'
import subprocess, sys
from google.protobuf import __version__, text_format
import numbers_pb2

EXPECTED = {  # text: (C++ takes it, Python takes it)
    "whole: 40": (True, True),
    "whole: 4_0": (False, True),
    "whole: 0b101": (False, True),
    "whole: 0o17": (False, True),
    "whole: +5": (False, True),
    "real: - 5": (True, False),
    "flag: 01": (True, False),
}
print("protobuf", __version__, "and the protoc of grpcio-tools 1.76.0")
wrong = 0
for text, expected in EXPECTED.items():
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--encode=Numbers", "numbers.proto"]
    cpp = subprocess.run(command, input=text.encode(), capture_output=True).returncode == 0
    try:
        text_format.Parse(text, numbers_pb2.Numbers())
        python = True
    except text_format.ParseError:
        python = False
    print("%-14s C++ %-8s Python %s" % (text, *("takes" if ok else "refuses" for ok in (cpp, python))))
    wrong += (cpp, python) != expected
sys.exit(wrong)
PYTHON
env/bin/python compare.py || { echo "NOT AS FOUND" >&2; exit 1; }
