"""Runs of the command in forks of one process that has imported everything: seconds less for each, killed for real.

``python forked.py`` reads a request a line and answers each with a number. ``argv`` starts a run (answer: its process
id), which leads a process group of its own; ``stdout``, ``stderr`` (paths), ``env`` (all of its environment) and
``cwd`` are those of the run. ``{"poll": id}`` asks for its exit status, which is negative for a signal; the answer is
null while the run goes on.

``at`` says where the run sends itself ``signal``, by default that of ``kill -9``: ``[what, name, count]`` with ``what``
one of ``before`` and ``after`` (a file takes the name), ``flush`` (it is about to be flushed to the disk under a
temporary name), ``half`` (the same, with half of it written) and ``any``; name ``*`` is every name.
``["step", "", 3]`` is when the values of step 3 are on file: the step after it has not begun. ``group`` sends the
signal to all processes of the run, ``file_size`` is the most bytes that a file may have, ``pictures`` false leaves out
the one of the curves.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import __main__
import musictf.evaluation.online_evaluator  # noqa: F401
import musictf.evaluation.probe_run  # noqa: F401
import musictf.pretraining.cost_estimate  # noqa: F401
import musictf.pretraining.pretrain_run  # noqa: F401
import musictf.reporting.report
import musictf.reporting.run_figures
import musictf.reporting.wandb_tracker
import musictf.sweep  # noqa: F401
from musictf.cli import main
from musictf.config import compose

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
    os.setpgid(0, 0)
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("stdout", "stderr")]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["musictf", *request["argv"]]
    __main__.__spec__ = find_spec("musictf.__main__")  # by which Lightning starts the other ranks
    if "at" in request:
        trap = Trap(*request["at"], request.get("signal", signal.SIGKILL), request.get("group", False))
        os.replace, os.fsync = trap.replace, trap.fsync
    if "file_size" in request:  # bytes a file may have: what a full disk does to a writer
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], resource.RLIM_INFINITY))
    if not request.get("pictures", True):
        musictf.reporting.run_figures.pretraining_pictures = lambda folder: [folder]
    main(request["argv"])


def status_of(pid):
    pid, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def serve():
    for verb, keys in (("pretrain", []), ("probe", ["backbone=mel"])):
        compose(verb, keys)  # imports what its first use does
    gc.freeze()  # a collection in a run would copy every page of the imports
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer = status_of(request["poll"])
        elif (answer := os.fork()) == 0:
            run(request)
            return
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
