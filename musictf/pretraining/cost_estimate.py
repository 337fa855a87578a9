"""Plan of a pretraining run before it starts: sizes, negatives, memory, time.

Time and memory are measured: a few steps with one rank's share of a batch, on this machine, in one process.
Communication between processes is not included.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning.pytorch as L
import torch

from musictf.audio.io import audio_info
from musictf.datasets.base import Track
from musictf.distributed import TrainerConfig
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.pretraining.callbacks import MetricsFile
from musictf.pretraining.module import refuse_split_norm
from musictf.pretraining.pretrain_run import PretrainRun, contrastive_module, make_trainer, pair_module, training_tracks
from musictf.pretraining.progress_bar import Bar
from musictf.pretraining.speed import peak_memory

WARM_UP, STEPS = 3, 20  # steps before and during the measurement
_ADAMW_BYTES = 16  # a float32 parameter, its gradient and its two moments
_PCM_BYTES = 2  # a packed sample


@dataclass(frozen=True)
class Plan:
    """The sizes of a run; times in seconds, memory and disk in bytes.

    Attributes:
        run: The configuration.
        tracks: Number of training tracks.
        audio_seconds: Their total length, versions included.
        disk: Size of their files, or of their part of the packs.
        parameters: Parameters of the backbone.
        state: Size of weights, gradients and moments of the optimiser, on each rank.
        ranks: Processes that share a batch.
        step_seconds: Time of an optimisation step, measured.
        memory: Peak memory of this process, measured; without a GPU it includes that of Python.
        device: Device of the measurement.
        skipped: Measured steps that were bad and skipped.
    """

    run: PretrainRun
    tracks: int
    audio_seconds: float
    disk: int
    parameters: int
    state: int
    ranks: int
    step_seconds: float
    memory: int
    device: str
    skipped: int

    def lines(self) -> list[tuple[str, str]]:
        """Rows of the printed plan: name and text."""
        run, pairs_per_rank = self.run, self.run.batch_size // self.ranks
        tracks_per_step = max(1, run.batch_size // run.pairs.excerpts_per_track)
        parts = f", embedded {min(run.micro_batch, pairs_per_rank)} at a time" if run.micro_batch else ""
        return [
            ("corpus", f"{run.dataset.label}: {self.tracks} tracks, {self.audio_seconds / 3600:.1f} h of audio"),
            ("data on disk", _size(self.disk)),
            ("model", f"{run.model.preset}: {self.parameters / 1e6:.2f} M parameters"),
            ("batch", f"{run.batch_size} pairs a step: {self.ranks} x {pairs_per_rank}{parts}"),
            ("negatives", f"{2 * run.batch_size - 2} a view, less those of its own {_source(run, self.tracks)}"),
            ("switches", _switches(run)),
            ("steps", f"{run.max_steps}: {run.max_steps * tracks_per_step / self.tracks:.1f} times through the corpus"),
            ("memory", f"{_size(self.memory)} measured, of which weights and optimiser {_size(self.state)}"),
            ("step", f"{self.step_seconds:.3g} s measured on {self.device}, one rank alone"),
            *([("attention", f"{self.skipped} of the measured steps had no finite gradient")] if self.skipped else []),
            (
                "expected",
                _duration(run.max_steps * self.step_seconds) + ", without waiting for ranks" * (self.ranks > 1),
            ),
        ]


class _Stopwatch(L.Callback):
    """Times at which steps ended, in seconds, and the number of bad steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.skipped = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":  # kernels run asynchronously: wait for the step to end
            torch.cuda.synchronize(pl_module.device)
        self.ends.append(perf_counter())


def plan(run: PretrainRun, steps: int = STEPS) -> Plan:
    """Read the headers of the corpus and measure a few steps. Writes nothing to disk that stays.

    Args:
        run: The configuration.
        steps: Steps to measure, after a warm-up.

    Returns:
        Sizes, time and memory of the whole run.

    Raises:
        InputError: something in the configuration or the corpus cannot be used.
    """
    ranks = num_ranks(run.trainer)
    if run.batch_size % ranks:
        raise InputError(f"batch_size={run.batch_size} is not a multiple of the {ranks} processes")
    tracks, valid = training_tracks(run)
    L.seed_everything(run.seed, verbose=False)
    backbone = Backbone(run.model, run.front_end)
    pair_module(run, backbone, tracks, valid)  # raises the errors that the run would raise
    on_cpu = run.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    refuse_split_norm(run.objective.projection, ranks, on_cpu)
    watch = _Stopwatch()
    device, threads = _measure(run, backbone, tracks, ranks, watch, steps), torch.get_num_threads()
    return Plan(
        run=run,
        tracks=len(tracks),
        audio_seconds=sum(_seconds(track) for track in tracks),
        disk=sum(_num_bytes(track) for track in tracks),
        parameters=backbone.num_parameters,
        state=_ADAMW_BYTES * backbone.num_parameters,
        ranks=ranks,
        step_seconds=(watch.ends[-1] - watch.ends[WARM_UP - 1]) / steps,
        memory=peak_memory(device),
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{threads} CPU thread{'s' * (threads > 1)}",
        skipped=watch.skipped,
    )


def num_ranks(trainer: TrainerConfig) -> int:
    """Processes that a configuration of the Trainer starts, over all nodes.

    Raises:
        InputError: ``trainer.devices`` is none of the forms that Lightning accepts.
    """
    devices = trainer.devices
    if isinstance(devices, str) and "," in devices:  # "0,1" and "0,"
        devices = [entry for entry in devices.split(",") if entry]
    if isinstance(devices, list):
        per_node = len(devices)
    elif str(devices) in {"-1", "auto"}:
        per_node = 1 if trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    else:
        per_node = int(devices) if str(devices).isdecimal() else 0
    if per_node < 1:
        raise InputError(f"trainer.devices={trainer.devices}: a number from 1, a list such as [0,1], or auto")
    return per_node * trainer.num_nodes


def _measure(
    run: PretrainRun, backbone: Backbone, tracks: list[Track], ranks: int, watch: _Stopwatch, steps: int
) -> torch.device:
    """Make the steps with one rank's share of the batch; returns the device they were made on."""
    short = copy.copy(run)  # not `replace`, which validates: the share of a rank need not be a valid batch
    short.batch_size, short.max_steps, short.resume = run.batch_size // ranks, WARM_UP + steps, "never"
    short.trainer = replace(run.trainer, devices=1, num_nodes=1, strategy="auto")
    data = pair_module(short, backbone, tracks, [])
    module = contrastive_module(short, backbone)
    with tempfile.TemporaryDirectory(prefix="musictf-plan-") as folder:
        callbacks: list[L.Callback] = [watch, *([Bar(1)] if short.trainer.enable_progress_bar else [])]
        trainer = make_trainer(short, data, Path(folder), MetricsFile(Path(folder) / "metrics.csv"), callbacks)
        trainer.fit(module, datamodule=data)
    watch.skipped = int(module.guard.num_skipped)
    return trainer.strategy.root_device


def _seconds(track: Track) -> float:
    """Length of all recordings of a track."""
    if track.slots:
        return sum(slot.num_samples / slot.sample_rate for slot in track.slots)
    return sum(audio_info(path).seconds for path in (track.audio, *track.versions))


def _num_bytes(track: Track) -> int:
    """Size on disk of all recordings of a track."""
    if track.slots:
        return sum(_PCM_BYTES * slot.num_samples for slot in track.slots)
    return sum(path.stat().st_size for path in (track.audio, *track.versions))


def _source(run: PretrainRun, num_tracks: int) -> str:
    """The common source of views that are not negatives of each other."""
    copies = run.batch_size / run.pairs.excerpts_per_track / num_tracks
    source = "region of a track" if run.pairs.excerpts_per_track > 1 else "track"
    return source + (f" ({num_tracks} tracks: each comes about {copies:.1f} times in a batch)" if copies > 1 else "")


def _switches(run: PretrainRun) -> str:
    """Settings of a step that differ from the plain recipe."""
    switches = {
        f"precision {run.trainer.precision}": True,
        f"{run.pairs.excerpts_per_track} excerpts per track": run.pairs.excerpts_per_track > 1,
        f"batches by {run.pairs.batch_by}": run.pairs.batch_by is not None,
        f"token dropping {run.token_dropping:g}": run.token_dropping > 0,
        "augmented": not run.augment.off,
        "compiled": run.compile,
        "activation checkpointing": run.activation_checkpointing,
    }
    return ", ".join(text for text, is_on in switches.items() if is_on)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
