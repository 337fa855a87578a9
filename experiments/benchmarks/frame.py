"""The frame of all benchmarks: what a measurement is, on which music, by which clock, and the table of results.

A benchmark is a file of this folder with a function ``measure(settings) -> list[Measurement]``; ``run.py`` finds it.

Conventions: seconds are wall time; a ratio stands only between things timed in one process, in alternating order; a
value that was not run to its end says so in ``against``. Whatever is left out of a comparison to save time is left out
of the other side, which then looks faster than it is.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from musictf.datasets.base import Dataset
from musictf.files import write_atomically
from musictf.models.backbone import Backbone, random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.run_folder import provenance

COLUMNS = ("name", "value", "unit", "against", "ratio", "target", "met", "machine", "commit")
MINI = ViT1DConfig(preset="vit1d_mini", depth=4, embed_dim=128, num_heads=4)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all benchmarks are told.

    Attributes:
        corpus: The music, with chords.
        device: Where networks run, ``cpu`` or ``cuda``.
        quick: Shrunk to about a minute: shows that everything runs, and nothing else.
    """

    corpus: Dataset
    device: str = "cpu"
    quick: bool = False

    def backbone(self) -> Backbone:
        """The backbone of all benchmarks: ``vit1d_mini`` with random weights, frozen."""
        return random_backbone(MINI).requires_grad_(False).to(self.device)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given; a clock read before that lies."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the results.

    Attributes:
        name: What was measured; ``run.py`` puts the benchmark's name before it.
        value: The number.
        unit: Its unit.
        against: What it is compared with, that one's number, and whether and from what it was extrapolated.
        ratio: How many times better than ``against``.
        target: What ``ratio`` (or ``value`` where there is none) is to reach.
        met: Whether it does.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None


def faster(name: str, ours: float, theirs: float, against: str, target: float | None = None) -> Measurement:
    """Seconds of ours beside seconds of something else."""
    ratio = theirs / ours
    met = None if target is None else ratio >= target
    return Measurement(
        name=name, value=ours, unit="s", against=f"{against}: {theirs:.4g} s", ratio=ratio, target=target, met=met
    )


def alternated(
    runs: Mapping[str, Callable[[], object]], rounds: int, synchronize: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Median seconds of each run, every other round in reverse order: what warms up or slows down hits all alike.

    Example:
        >>> sorted(alternated({"a": lambda: None, "b": lambda: None}, rounds=3))
        ['a', 'b']
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            seconds[name].append(timed(runs[name], synchronize))
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(run: Callable[[], object], synchronize: Callable[[], None] = lambda: None) -> float:
    """Seconds that a call takes."""
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def accelerator(device: str) -> str:
    """Lightning's name of a device."""
    return "cpu" if device == "cpu" else "gpu"


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """An empty ``MUSICTF_CACHE`` for the duration of the block."""
    before = os.environ.get("MUSICTF_CACHE")
    with tempfile.TemporaryDirectory(prefix="musictf-bench-") as folder:
        os.environ["MUSICTF_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["MUSICTF_CACHE"]
            if before is not None:
                os.environ["MUSICTF_CACHE"] = before


def machine(device: str = "cpu") -> str:
    """Processor, cores and threads that were at hand, torch's version, and the accelerator if one was used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads", f"torch {torch.__version__}"]
    if device != "cpu":
        parts.append(torch.cuda.get_device_name(device))
    return "; ".join(parts)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The state of the code: ten digits of the commit, ``+`` where files differ from it."""
    git = provenance()["git"]
    return f"{git['commit'][:10]}{'+' if git['dirty'] else ''}" if git["commit"] else "none"


def rows_of(benchmark: str, measurements: Sequence[Measurement], settings: Settings) -> list[dict[str, str]]:
    """Measurements as rows of ``results.csv``; of a quick run none is judged."""
    shared = {"machine": machine(settings.device), "commit": commit()}
    return [
        {
            "name": f"{benchmark}/{found.name}",
            "value": f"{found.value:.6g}",
            "unit": found.unit,
            "against": found.against,
            "ratio": "" if found.ratio is None else f"{found.ratio:.4g}",
            "target": "" if found.target is None else f"{found.target:g}",
            "met": "" if found.met is None or settings.quick else "yes" if found.met else "no",
            **shared,
        }
        for found in measurements
    ]


def replace_rows(path: Path, benchmark: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Put the rows of a benchmark in the place of its former ones, and leave those of all others."""
    kept: list[Mapping[str, str]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["name"].partition("/")[0] != benchmark]
    every = sorted([*kept, *rows], key=lambda row: row["name"].partition("/")[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    write_atomically(path, text.getvalue())
