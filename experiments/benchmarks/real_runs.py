"""Real ``musictf pretrain`` commands on a packed part of the corpus, and what their ``metrics.csv`` says."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track
from musictf.packing.make_pack import pack

_SPEED, _WAITING = "train/examples_per_second", "train/data_wait"


@dataclass(kw_only=True)
class First(Dataset):
    """The first training tracks of a corpus."""

    name: ClassVar[str] = "first"

    corpus: Any = None
    number: int = 0

    def read_tracks(self) -> list[Track]:
        tracks: list[Track] = self.corpus.tracks("train")[: self.number]
        return tracks


@contextmanager
def packed(corpus: Dataset, number: int) -> Iterator[Path]:
    """The first training tracks of a corpus in a pack, which is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="musictf-bench-") as folder:
        yield pack(First(corpus=corpus, number=number), str(Path(folder, "pack")))


@dataclass(frozen=True)
class Logged:
    """What a run logged after its start: examples a second and the share of time it waited for data, by row."""

    speeds: list[float]
    waits: list[float]


def pretrained(pack: Path, threads: int, keys: Sequence[str]) -> Logged:
    """Train a ``vit1d_mini`` by the command line, without validation; the first logged row is its start.

    Args:
        pack: Its corpus.
        threads: Of each process.
        keys: What else the command is told.
    """
    with tempfile.TemporaryDirectory(prefix="musictf-bench-") as folder:
        output = Path(folder, "run")
        command = [sys.executable, "-m", "musictf", "pretrain", "dataset=packed", f"dataset.root={pack}"]
        command += ["model=vit1d_mini", "identities=none", "wandb.mode=disabled", "trainer.enable_progress_bar=false"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [*command, f"output_dir={output}", *keys], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(done.args)} failed:\n{done.stderr}")
        return logged(output / "metrics.csv")


def logged(path: Path) -> Logged:
    """Read a ``metrics.csv``."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[_SPEED]][1:]
    return Logged([float(row[_SPEED]) for row in rows], [float(row[_WAITING]) for row in rows])
