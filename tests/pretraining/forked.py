"""Runs of the command in forks of one process that has imported everything: seconds less for each, killed for real.

``python forked.py`` reads a request a line (JSON: ``argv``, ``env``, ``output`` for stdout and stderr, ``at``,
``signal``) and answers each with the exit status; a signal is negative. ``at`` says where the run sends itself the
signal: ``[what, name, count]`` with ``what`` one of ``before`` and ``after`` (a file takes the name), ``flush`` (it is
about to be flushed to the disk under a temporary name), ``half`` (the same, with half of it written) and ``any``; name
``*`` is every name. ``["step", "", 3]`` is when the values of step 3 are on file: the step after it has not begun.
``group`` sends the signal to all processes of the run, ``file_size`` is the most bytes that a file may have.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import musictf.config  # noqa: F401
import musictf.pretraining.run  # noqa: F401
import musictf.report.pictures
from musictf.cli import main

TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
REPLACE, FSYNC = os.replace, os.fsync


class Trap:
    """Counts what happens to files and acts when the count is reached."""

    def __init__(self, what, name, count, number, group):
        self.what, self.name, self.left, self.number, self.group = what, name, count, number, group
        self.step = count

    def passes(self, what, name):
        if self.what in {what, "any"} and self.name in {name, "*"}:
            self.left -= 1
            if self.left == 0:
                (os.killpg if self.group else os.kill)(os.getpid(), self.number)

    def replace(self, source, target):
        self.passes("before", Path(target).name)
        REPLACE(source, target)
        if self.what == "step" and Path(target).name == "metrics.csv":
            done = Path(target).read_text().splitlines()[-1].partition(",")[0]
            if int(done) == self.step:
                self.step, self.left = None, 1
                self.passes("step", self.name)
        self.passes("after", Path(target).name)

    def fsync(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        match = TEMPORARY.fullmatch(Path(path).name)
        if match and self.what == "half" and self.name == match[1]:
            if self.left == 1:
                os.truncate(path, os.path.getsize(path) // 2)
            self.passes("half", match[1])
        self.passes("flush", match[1] if match else Path(path).name)
        FSYNC(descriptor)


def run(request):
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(request.get("env", {}))
    sys.argv = ["musictf", *request["argv"]]
    if "at" in request:
        trap = Trap(*request["at"], request["signal"], request.get("group", False))
        os.replace, os.fsync = trap.replace, trap.fsync
    if "file_size" in request:  # bytes a file may have: what a full disk does to a writer
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], resource.RLIM_INFINITY))
    if "wandb.mode=offline" not in request["argv"]:  # nobody looks at the picture, which takes as long as the run
        musictf.report.pictures.pretraining_pictures = lambda folder: [folder]
    main(request["argv"])


def serve():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
