"""worker.py's server of workers for any folder: each test has one of its own. Runs in pycaffe's interpreter.

A request names the folder after the key, and the forked worker goes there first.
"""

import os
import sys

sys.path[0] = os.path.dirname(sys.argv.pop(1))  # that of worker.py, which takes it off again

import counting  # noqa: E402
import forking  # noqa: E402
import worker  # noqa: E402


def serve_in_folders(*args, **kwargs):
    forked = serve(*args, **kwargs)
    if forked is not None:
        forked.message, _, folder = forked.message.partition(b" ")
        os.chdir(os.fsdecode(folder))
    return forked


if __name__ == "__main__":
    serve, forking.serve = forking.serve, serve_in_folders
    worker.counting, worker.forking = counting, forking  # a program imports them itself
    sys.exit(worker.main())
