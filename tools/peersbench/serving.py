"""What the contenders' processes have in common: they answer requests and tell their time and memory.

Python alone, 3.8 and newer: it runs beside Caffe and beside PyTorch. A request and its reply are
one line of JSON each. Requests are

    (start)                       versions, and the memory before anything is opened
    open   work ...               parameters; or whatever else the work tells of itself
    turn   passes                 seconds of CPU and of wall time of a pass, by what is measured
    close                         the process ends, as it does when its driver does

What fails is answered by {"error": text}; the process then ends.
"""

import json
import os
import sys
import time


class Watch:
    """Adds up the CPU time of this process, and the wall time, of what it is told to run."""

    def __init__(self):
        self.cpu, self.wall = {}, {}

    def time(self, name, work):
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        return made


def memory(field):
    """Bytes of this process's memory: VmHWM is the highest so far, VmRSS what it has now."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def serve(begin):
    """Answer requests until there are no more.

    Args:
        begin: called once; returns what to say about itself, and a function that opens a work for
            a request. A work has ``about``, a dict, and ``run(passes, watch)``.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply

    def reply(**fields):
        replies.write(json.dumps(dict(fields, peak=memory("VmHWM"))) + "\n")
        replies.flush()

    try:
        about, open_work = begin()
        reply(memory=memory("VmRSS"), **about)
        work = None
        for line in iter(sys.stdin.readline, ""):
            request = json.loads(line)
            if request["do"] == "close":
                break
            if request["do"] == "open":
                work = None  # its memory, before that of the next
                work = open_work(request)
                reply(**work.about)
            else:
                watch = Watch()
                work.run(request["passes"], watch)
                per_pass = [
                    {name: seconds / request["passes"] for name, seconds in times.items()}
                    for times in (watch.cpu, watch.wall)
                ]
                reply(cpu=per_pass[0], wall=per_pass[1])
    except Exception as error:  # whatever it is, the driver is to hear of it
        reply(error=f"{type(error).__name__}: {error}")
        sys.exit(1)
