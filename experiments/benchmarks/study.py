"""A full study of chords: heads of all readouts, layers, learning rates and seeds, beside the plain ways to train them.

Ours is timed twice, before and after the others. "From cached features" is features mapped from the store, heads of all
settings fitted, and the layer chosen on validation; "from audio" adds the extraction into an empty store. The plain
ways train one head after another; some are run, one for each learning rate in turn, and multiplied. They choose no
layer, and the second validates nothing and takes as many steps as the first: what is left out is in their favour.

Losses are compared for heads of the learning rates that ours chose, from the same initial weights in the same order of
examples: in another order the losses of one and the same way differ by more than the target.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from frame import MINI, Measurement, Settings, accelerator, faster, fresh_cache
from plain import Excerpts, PlainHead, Shuffled, head_from_features, seconds_a_step
from torch import Tensor
from torch.utils.data import TensorDataset

from musictf.distributed import TrainerConfig
from musictf.evaluation.study import decoded, logits_of
from musictf.evaluation.task_tracks import Corpus, annotated
from musictf.features.extract import FeatureConfig, extract
from musictf.features.readouts import Split, trained_split
from musictf.models.backbone import Backbone
from musictf.probing.heads import Head
from musictf.probing.heads import statistics as feature_statistics
from musictf.probing.linear_probe import ProbeConfig, fit
from musictf.results.names import READOUTS
from musictf.tasks.base import Task
from musictf.tasks.chord import ChordTask

TARGET_FROM_FEATURES = 50.0
TARGET_FROM_AUDIO = 500.0
TARGET_LOSS = 1e-3  # nats a token

Heads = dict[tuple[str, int], list[Head]]
Cell = tuple[str, int, tuple[float, float]]  # readout, layer, learning rate and weight decay


@dataclass(kw_only=True)
class Plan:
    """How large a study is, and how much of the plain ways is really run."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    layers: list[int] = field(default_factory=lambda: list(range(MINI.depth + 1)))
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    num_heads: int = 5
    num_encoding_heads: int = 3
    encoding_steps: int = 10

    @property
    def size(self) -> int:
        """Heads of the whole study."""
        return len(READOUTS) * len(self.layers) * len(self.probe.settings) * len(self.seeds)

    def cells(self) -> list[Cell]:
        """Heads that are trained the plain way: readouts, layers and settings in turn, so that none is favoured."""
        axes = (itertools.cycle(axis) for axis in (READOUTS, self.layers, self.probe.settings))
        return list(itertools.islice(zip(*axes), self.num_heads))


def plan(quick: bool) -> Plan:
    """The study of ``musictf probe`` with its defaults, or a shrunk one."""
    if not quick:
        return Plan()
    probe = ProbeConfig(learning_rates=[1e-3, 1e-2], steps=40, valid_every=20, valid_examples=512)
    return Plan(probe=probe, layers=[0, MINI.depth], seeds=[0], num_heads=3, num_encoding_heads=1, encoding_steps=2)


def measure(settings: Settings) -> list[Measurement]:
    """Time the study, heads one by one from the same features, and heads that encode audio at every step."""
    sizes, task = plan(settings.quick), ChordTask()
    corpus = annotated(settings.corpus, task, allow_missing=True)
    task.prepare(corpus.references["train"])
    backbone = settings.backbone()
    ours = Ours()
    heads, splits = study(sizes, task, corpus, backbone, settings, ours)
    plain = Plain(sizes, task, splits, settings.device)
    by_example = [plain.head(cell) for cell in sizes.cells()]
    by_batch = [plain.head(cell, whole_batches=True) for cell in sizes.cells()]
    apart = [abs(plain.head(cell, whole_batches=True).loss - loss) for cell, loss in chosen(sizes, heads)]
    excerpts = Excerpts(corpus.tracks["train"], corpus.references["train"], task, backbone)
    encoding = [
        seconds_a_step(excerpts, backbone, readout, layer, sizes.probe, sizes.encoding_steps, settings.device)
        for readout, layer, _ in sizes.cells()[: sizes.num_encoding_heads]
    ]
    del heads, splits, plain
    study(sizes, task, corpus, backbone, settings, ours)
    return rows(sizes, ours, by_example, by_batch, encoding, max(apart))


@dataclass
class Ours:
    """Seconds of our studies."""

    from_features: list[float] = field(default_factory=list)
    from_audio: list[float] = field(default_factory=list)


def study(
    sizes: Plan, task: Task, corpus: Corpus, backbone: Backbone, settings: Settings, seconds: Ours
) -> tuple[Heads, dict[str, Split]]:
    """Our way: extract into an empty store, fit all heads at once, choose layers on validation."""
    with fresh_cache():
        started = time.perf_counter()
        _features(sizes, corpus, backbone, settings)
        extracted = time.perf_counter()
        splits = {
            name: trained_split(task, features, corpus.references[name], READOUTS)
            for name, features in _features(sizes, corpus, backbone, settings).items()
        }
        trainer = TrainerConfig(accelerator=accelerator(settings.device))
        heads = fit(task, splits["train"], splits["valid"], sizes.layers, sizes.probe, trainer, sizes.seeds)
        for (readout, _), found in heads.items():
            chosen_layer(task, found, readout, splits["valid"])
        seconds.from_features.append(time.perf_counter() - extracted)
        seconds.from_audio.append(time.perf_counter() - started)
    return heads, splits


def _features(sizes: Plan, corpus: Corpus, backbone: Backbone, settings: Settings) -> dict[str, Any]:
    config = FeatureConfig()
    return {
        name: extract(backbone, corpus.tracks[name], sizes.layers, config, settings.device)
        for name in ("train", "valid")
    }


def chosen_layer(task: Task, heads: Sequence[Head], readout: str, valid: Split) -> int:
    """The layer whose head scores best on the validation tracks."""
    values = []
    for head in heads:
        logits = [logits_of(head, readout, track) for track in valid.tracks]
        decoder = task.calibrate(task.decoders[0], logits, [track.times for track in valid.tracks], valid.references)
        values.append(task.validate(valid.references, decoded(task, head, readout, valid, decoder)))
    return heads[int(np.nanargmax(values))].layer


def chosen(sizes: Plan, heads: Heads) -> list[tuple[Cell, float]]:
    """The heads of the plain way at the settings that ours chose, each with our validation loss."""
    found = []
    for readout, layer, _ in sizes.cells():
        head = next(head for head in heads[readout, sizes.seeds[0]] if head.layer == layer)
        setting = (head.selection["lr"], head.selection["weight_decay"])
        found.append(((readout, layer, setting), head.selection["loss"]))
    return found


@dataclass(frozen=True)
class PlainFit:
    """What came of one head."""

    loss: float  # the lowest on validation
    steps: int
    seconds: float


@dataclass(frozen=True)
class Plain:
    """Trains heads the plain way from the features of ours."""

    sizes: Plan
    task: Task
    splits: dict[str, Split]
    device: str

    def head(self, cell: Cell, whole_batches: bool = False) -> PlainFit:
        """Train one head, from features to its best weights."""
        (readout, layer, (rate, decay)), seed, probe = cell, self.sizes.seeds[0], self.sizes.probe
        started = time.perf_counter()
        train, valid = plain_examples(self.splits, readout, self.sizes.layers.index(layer), probe.valid_examples)
        embed_dim = train.tensors[0].shape[1]
        head = PlainHead(embed_dim, self.task.num_outputs, seed, rate, decay, probe.steps)
        order = Shuffled(len(train), seed)
        loss, steps = head_from_features(train, valid, head, order, probe, accelerator(self.device), whole_batches)
        return PlainFit(loss, steps, time.perf_counter() - started)


def plain_examples(
    splits: dict[str, Split], readout: str, column: int, valid_examples: int
) -> tuple[TensorDataset, TensorDataset]:
    """Training and validation examples of one readout and layer, standardised; validation ones as ours has them."""
    rows = splits["train"].rows[readout][:, column : column + 1]
    mean, scale = (moment[0] for moment in feature_statistics(rows))

    def examples(split: Split, chosen: Tensor) -> TensorDataset:
        features = split.rows[readout][split.index[readout][chosen], column].float()
        return TensorDataset((features - mean) / scale, split.targets[chosen])

    number = len(splits["valid"].targets)
    wanted = min(number, valid_examples)
    evenly = torch.arange(wanted) * number // wanted
    return examples(splits["train"], torch.arange(len(splits["train"].targets))), examples(splits["valid"], evenly)


def rows(
    sizes: Plan,
    ours: Ours,
    by_example: Sequence[PlainFit],
    by_batch: Sequence[PlainFit],
    step_seconds: Sequence[float],
    apart: float,
) -> list[Measurement]:
    """What the times say.

    Args:
        sizes: Of the study.
        ours: Seconds of our studies.
        by_example: Heads trained one at a time, batches collated from examples.
        by_batch: The same with batches indexed whole.
        step_seconds: Of a step that encodes audio, of some heads.
        apart: Largest difference of validation losses, nats.
    """
    cached, whole = statistics.fmean(ours.from_features), statistics.fmean(ours.from_audio)
    plain, indexed = (sizes.size * statistics.fmean(fit.seconds for fit in fits) for fits in (by_example, by_batch))
    steps = statistics.fmean(fit.steps for fit in by_example)
    encoding = sizes.size * steps * statistics.fmean(step_seconds)
    number = f"extrapolated from {len(by_example)} of {sizes.size} heads"
    return [
        faster(
            "from cached features",
            cached,
            plain,
            f"Lightning, one head at a time from the same features, DataLoader of 1024 shuffled examples, {number}",
            TARGET_FROM_FEATURES,
        ),
        faster("from cached features, batches indexed whole", cached, indexed, f"the same, whole batches, {number}"),
        faster(
            "from audio",
            whole,
            encoding,
            "audio read and encoded at every step, validation left out, extrapolated from "
            f"{len(step_seconds)} of {sizes.size} heads and {sizes.encoding_steps} of {steps:.0f} steps each",
            TARGET_FROM_AUDIO,
        ),
        Measurement(
            name="loss apart",
            value=apart,
            unit="nats",
            against=(
                f"lowest validation loss of {len(by_example)} heads trained one at a time from the same weights in "
                "the same order; largest difference"
            ),
            target=TARGET_LOSS,
            met=apart <= TARGET_LOSS,
        ),
    ]
