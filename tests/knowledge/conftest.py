"""The workspace of the tests with real Caffe."""

from __future__ import annotations

from tests.caffe.conftest import (  # noqa: F401
    caffe_program,
    digits,
    make_workspace,
    shared_workspace,
    workspace,
)
