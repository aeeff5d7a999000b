"""What a command can fail with, and the exit code that goes with it."""

from __future__ import annotations


class LRBenchError(Exception):
    """A failure with a message for people: printed as one line, without a traceback."""

    exit_code = 1


class InputError(LRBenchError):
    """Something the user gave is wrong. The message names the file, field, value and what is allowed."""

    exit_code = 2


class TrainingError(LRBenchError):
    """A training ended before its time: Caffe aborted, hung, was killed, or the loss diverged."""
