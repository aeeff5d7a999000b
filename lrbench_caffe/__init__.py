"""LRBench for Caffe: find, measure, rank and recommend learning-rate policies."""

import os
import signal
import sys

__version__ = "0.1.0"

# A command that still loads its modules (``python -m`` has not named it in argv yet) ends at Ctrl-C without a
# traceback; ``cli.run`` listens once they are there. As a library this package leaves signals alone.
_is_command = os.path.basename(sys.argv[0] if sys.argv else "") in ("-m", "lrbench-caffe")
_is_ignored = signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # as in the background
if _is_command and not _is_ignored:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
