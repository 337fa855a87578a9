"""What every test stands on: a cache and run names of its own, and a small corpus of sound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
LAUNCHERS = ("MUSICTF_RUN_NAME", "SLURM_JOB_ID", "SLURM_PROCID", "RANK", "LOCAL_RANK", "WORLD_SIZE")


def pytest_configure():
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # torch and numba are not imported yet
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores
        # Two processes that compile librosa's functions at once leave a cache from which every later process crashes.
        os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba" / worker))


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSICTF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone even where nothing was set before
        monkeypatch.delenv(name)


class ForkedRun:
    """A run of the command, much as `subprocess.Popen` has it; `stdout` and `stderr` are what it has said so far."""

    def __init__(self, ask, pid, stdout, stderr):
        self.ask, self.pid, self.paths, self.returncode = ask, pid, (stdout, stderr), None

    def poll(self):
        if self.returncode is None:
            self.returncode = self.ask(poll=self.pid)
        return self.returncode

    def wait(self, seconds=400):
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"not done in {seconds} s; said so far:\n{self.stderr}")
            time.sleep(0.01)
        return self.returncode

    @property
    def stdout(self):
        return self.paths[0].read_text()

    @property
    def stderr(self):
        return self.paths[1].read_text()


class Forked:
    """Starts the command in forks of one process; see `forked.py`."""

    def __init__(self, folder):
        self.folder, self.runs, self.said = folder, [], folder / "imports.txt"
        self.own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        with open(self.said, "w") as said:
            self.server = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("forked.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | self.own,
            )  # fmt: skip

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        said = self.said.read_text()  # what a command would say before its own first word
        assert answer, said
        assert not said, said
        return json.loads(answer)

    def __call__(self, argv, cwd=None, env=None, together=False, **request):
        """A run that has begun.

        Its environment is the one of now with what is given; `together` puts stderr among stdout, as a terminal does.
        """
        stdout = self.folder / f"{len(self.runs)}.stdout"
        stderr = stdout if together else stdout.with_suffix(".stderr")
        where = {"cwd": str(cwd or Path.cwd()), "env": os.environ | self.own | (env or {})}
        pid = self.ask(argv=list(map(str, argv)), stdout=str(stdout), stderr=str(stderr), **where, **request)
        self.runs.append(ForkedRun(self.ask, pid, stdout, stderr))
        return self.runs[-1]

    def close(self):
        for run in self.runs:
            if run.poll() is None:  # its test failed
                os.killpg(run.pid, signal.SIGKILL)
        self.server.stdin.close()
        self.server.wait(60)
        self.server.stdout.close()


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """Starts ``musictf`` in forks of a process that has imported everything: ``(argv, cwd, env) -> ForkedRun``."""
    forked = Forked(tmp_path_factory.mktemp("forked"))
    yield forked
    forked.close()


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).clip(-1, 1).astype(np.float32)


def make_corpus(folder: Path, num_tracks: int = 4, seconds: float = 3.0, sample_rate: int = 16_000) -> Path:
    """A folder of wav files; each track is a chord of its own in noise, so that tracks can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    for index in range(num_tracks):
        tones = [np.sin(2 * np.pi * 110 * 2 ** ((5 * index + step) / 12) * time) for step in (0, 4, 7)]
        waveform = 0.1 * np.sum(tones, axis=0) + noise(len(time), index, 0.02)
        soundfile.write(folder / f"track{index}.wav", waveform, sample_rate, subtype="FLOAT")
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Folder of four tracks of three seconds."""
    return make_corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def white_noise():
    """Maker of noise: (num_samples, seed, level) -> float32."""
    return noise


@pytest.fixture(scope="session")
def corpus_maker():
    """Maker of corpora: (folder, num_tracks, seconds, sample_rate) -> folder."""
    return make_corpus
