"""A full study of chords: heads of all readouts, layers, learning rates and seeds, beside the plain ways to train them.

Ours is timed twice, before and after the others. "From cached features" is features mapped from the store, heads of all
settings fitted, and the layer chosen on validation; "from audio" adds the extraction into an empty store. The plain
ways train one head after another; some are run and multiplied. They choose no layer, and the second validates nothing
and encodes no more of the audio than a step needs: what is left out is in their favour.

Shapes:  N examples   L layers   D embedding
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
from frame import MINI, Measurement, Settings, faster, fresh_cache
from plain import Excerpts, PlainFit, PlainHead, Shuffled, head_from_features, seconds_a_step
from torch import Tensor
from torch.utils.data import TensorDataset

from musictf.evaluation.corpus import Corpus, annotated
from musictf.evaluation.study import decoded, logits_of
from musictf.models.backbone import Backbone
from musictf.probing.features import FeatureConfig, extract
from musictf.probing.heads import Head
from musictf.probing.heads import statistics as feature_statistics
from musictf.probing.module import ProbeConfig, fit
from musictf.probing.readouts import READOUTS, Split, trained_split
from musictf.runs import TrainerConfig
from musictf.tasks.base import Task
from musictf.tasks.chord import Chord

TARGET_FROM_FEATURES = 50.0
TARGET_FROM_AUDIO = 500.0
TARGET_LOSS = 1e-3  # nats a token

Heads = dict[tuple[str, int], list[Head]]


@dataclass(kw_only=True)
class Plan:
    """How large a study is, and how much of the plain ways is really run."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    layers: list[int] = field(default_factory=lambda: list(range(MINI.depth + 1)))
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    num_heads: int = 6
    num_encoding_heads: int = 3
    encoding_steps: int = 10

    @property
    def size(self) -> int:
        """Heads of the whole study."""
        return len(READOUTS) * len(self.layers) * len(self.probe.settings) * len(self.seeds)

    def cells(self) -> list[tuple[str, int]]:
        """Readout and layer of the heads that are trained the plain way: all readouts, layers from low to high."""
        pairs = zip(itertools.cycle(READOUTS), itertools.cycle(self.layers), range(self.num_heads))
        return [(readout, layer) for readout, layer, _ in pairs]


def plan(quick: bool) -> Plan:
    """The study of ``musictf probe`` with its defaults, or a shrunk one."""
    if not quick:
        return Plan()
    probe = ProbeConfig(learning_rates=[1e-3, 1e-2], steps=40, valid_every=20, valid_examples=1024)
    return Plan(probe=probe, layers=[0, MINI.depth], seeds=[0], num_heads=3, num_encoding_heads=1, encoding_steps=2)


@dataclass
class Ours:
    """One study, and its seconds."""

    heads: Heads
    splits: dict[str, Split]
    from_features: float
    from_audio: float


def measure(settings: Settings) -> list[Measurement]:
    """Time the study, heads one by one from the same features, and heads that encode audio at every step."""
    sizes, task = plan(settings.quick), Chord()
    corpus = annotated(settings.corpus, task, allow_missing=True)
    task.prepare(corpus.references["train"])
    backbone = settings.backbone()
    studies = [study(sizes, task, corpus, backbone, settings)]
    plain = [
        [timed_head(cell, studies[0], sizes, task, settings, whole) for cell in sizes.cells()]
        for whole in (False, True)
    ]
    excerpts = Excerpts(corpus.tracks["train"], corpus.references["train"], task, backbone)
    cells = sizes.cells()[: sizes.num_encoding_heads]
    steps = [
        seconds_a_step(excerpts, backbone, *cell, sizes.probe, sizes.encoding_steps, settings.device) for cell in cells
    ]
    studies.append(study(sizes, task, corpus, backbone, settings))
    return rows(sizes, studies, plain, steps)


def study(sizes: Plan, task: Task, corpus: Corpus, backbone: Backbone, settings: Settings) -> Ours:
    """Our way: extract into an empty store, fit all heads at once, choose layers on validation."""
    with fresh_cache():
        started = time.perf_counter()
        _features(sizes, corpus, backbone, settings)
        extracted = time.perf_counter()
        splits = {
            name: trained_split(task, features, corpus.references[name], READOUTS)
            for name, features in _features(sizes, corpus, backbone, settings).items()
        }
        trainer = TrainerConfig(accelerator="cpu" if settings.device == "cpu" else "gpu")
        heads = fit(task, splits["train"], splits["valid"], sizes.layers, sizes.probe, trainer, sizes.seeds)
        for (readout, _), found in heads.items():
            chosen_layer(task, found, readout, splits["valid"])
        finished = time.perf_counter()
    return Ours(heads, splits, finished - extracted, finished - started)


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


@dataclass(frozen=True)
class TimedHead:
    """A head that was trained the plain way, beside ours of the same readout, layer, seed and learning rate."""

    seconds: float
    fit: PlainFit
    our_loss: float


def timed_head(
    cell: tuple[str, int], ours: Ours, sizes: Plan, task: Task, settings: Settings, whole_batches: bool
) -> TimedHead:
    """Train one head the plain way, from features to its best weights, at the learning rate that ours chose."""
    (readout, layer), seed = cell, sizes.seeds[0]
    head = next(head for head in ours.heads[readout, seed] if head.layer == layer)
    rate, decay = head.selection["lr"], head.selection["weight_decay"]
    started = time.perf_counter()
    train, valid = plain_examples(ours.splits, readout, head.column, sizes.probe.valid_examples)
    module = PlainHead(len(head.weight), task.num_outputs, seed, rate, decay, sizes.probe.steps)
    accelerator = "cpu" if settings.device == "cpu" else "gpu"
    found = head_from_features(
        train, valid, module, Shuffled(len(train), seed), sizes.probe, accelerator, whole_batches
    )
    return TimedHead(time.perf_counter() - started, found, head.selection["loss"])


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
    sizes: Plan, studies: Sequence[Ours], plain: Sequence[Sequence[TimedHead]], step_seconds: Sequence[float]
) -> list[Measurement]:
    """What the times say."""
    cached, whole = (
        statistics.fmean(getattr(ours, name) for ours in studies) for name in ("from_features", "from_audio")
    )
    by_example, by_batch = (sizes.size * statistics.fmean(head.seconds for head in heads) for heads in plain)
    steps = statistics.fmean(head.fit.steps for head in plain[0])
    encoding = sizes.size * steps * statistics.fmean(step_seconds)
    apart = max(abs(head.fit.loss - head.our_loss) for heads in plain for head in heads)
    number = f"extrapolated from {len(plain[0])} of {sizes.size} heads"
    return [
        faster(
            "from cached features",
            cached,
            by_example,
            f"Lightning, one head at a time from the same features, DataLoader of 1024 shuffled examples, {number}",
            TARGET_FROM_FEATURES,
        ),
        faster("from cached features, batches indexed whole", cached, by_batch, f"the same, whole batches, {number}"),
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
                f"lowest validation loss of {len(plain[0])} heads trained one at a time from the same weights in "
                "the same order; largest difference"
            ),
            target=TARGET_LOSS,
            met=apart <= TARGET_LOSS,
        ),
    ]
