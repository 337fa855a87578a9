"""Frozen features: whole tracks through a backbone once, stitched, timed, and kept on disk by content.

Shapes:  L layers   E excerpts of a track   K tokens of a track   T tokens of an excerpt   D embedding

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times and are
averaged there, those near an excerpt's edge counting less. A batch holds excerpts of several tracks and always has the
same size, so a track's features do not depend on its neighbours. Audio is read ahead by a thread, a stretch of some
excerpts at a time, and tokens are written as soon as no later excerpt reaches them: memory grows with neither the
length of a track nor their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.excerpting import ExcerptPlan, OverlapAverage, excerpt_batches, stacked
from musictf.features.store import EntryWriter, Extractor, read_entry
from musictf.models.backbone import Backbone

EXTRACTOR_VERSION = 2


@dataclass(kw_only=True)
class FeatureConfig:
    """How tracks are cut, and what is kept.

    Attributes:
        excerpt_hop: Tokens between excerpts (63 is half an excerpt of 126).
        precision: Of stored embeddings, ``float16`` or ``float32``; times are float64.
        batch_size: Excerpts that go through the backbone at once.
        memory_gib: Features of a split larger than this are trained on from disk.
    """

    excerpt_hop: int = 63
    precision: str = "float16"
    batch_size: int = 16
    memory_gib: float = 8.0

    def __post_init__(self) -> None:
        if self.precision not in {"float16", "float32"}:
            raise InputError(f"features.precision={self.precision!r} is unknown: one of float16, float32")
        if self.excerpt_hop < 1 or self.batch_size < 1:
            raise InputError("features: excerpt_hop and batch_size must be at least 1")


@dataclass
class TrackFeatures:
    """Features of one track; times in seconds."""

    class_token: Tensor  # (E, L, D)
    average: Tensor  # (E, L, D), mean over time of class and sequence tokens together
    sequence_mean: Tensor  # (E, L, D), mean over the sequence tokens of an excerpt
    sequence: Tensor  # (K, L, D), stitched over the track
    times: Tensor  # (K,) float64, token centres
    excerpt_times: Tensor  # (E,) float64, excerpt centres
    seconds: Tensor  # () float64, duration of the track


class StoredFeatures(Sequence[TrackFeatures]):
    """Features of tracks in the store, each mapped when it is asked for: a process may not map without end."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> TrackFeatures: ...
    @overload
    def __getitem__(self, index: slice) -> StoredFeatures: ...
    def __getitem__(self, index: int | slice) -> TrackFeatures | StoredFeatures:
        return StoredFeatures(self.paths[index]) if isinstance(index, slice) else _load(self.paths[index])


def extract(
    backbone: Backbone,
    tracks: Sequence[Track],
    layers: Sequence[int],
    config: FeatureConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> StoredFeatures:
    """Features of tracks, in order, mapped from the store when asked for; computed first where it lacks them.

    Several processes may do this at once, ranks of one run included: each starts at another track, and leaves out what
    a neighbour has finished in the meantime.

    Args:
        backbone: What computes them.
        tracks: Whose features.
        layers: Which layers.
        config: How tracks are cut.
        device: Where the backbone runs.
        advance: Called once for each track that is done.
    """
    extractor = Extractor.of(
        {
            "backbone": backbone.digest(),
            "kind": backbone.kind,
            "preset": backbone.name,
            "version": EXTRACTOR_VERSION,
            "layers": list(layers),
            "excerpt_hop": config.excerpt_hop,
            "precision": config.precision,
        }
    )
    paths = [extractor.entry(track.audio) for track in tracks]
    missing = {path: track.audio for track, path in zip(tracks, paths, strict=True) if read_entry(path) is None}
    for _ in range(len(paths) - len(missing)):
        advance()
    if missing:
        _compute(backbone.to(device).eval(), missing, layers, config, device, advance)
    return StoredFeatures(paths)


class _Stitcher:
    """Joins the excerpts of one track as they come, and writes what no later one can change."""

    def __init__(self, cut: ExcerptPlan, backbone: Backbone, num_layers: int, precision: str) -> None:
        front_end = backbone.front_end.config
        self.hop_length = front_end.hop_length
        self.num_tokens = front_end.num_frames(cut.num_samples)
        self.left = len(cut.starts)
        self.joined = OverlapAverage()
        each = ((len(cut.starts), num_layers, backbone.embed_dim), precision)
        self.entry = EntryWriter(
            cut.path,
            {
                "class_token": each,
                "average": each,
                "sequence_mean": each,
                "sequence": ((self.num_tokens, num_layers, backbone.embed_dim), precision),
                "times": ((self.num_tokens,), "float64"),
                "excerpt_times": ((len(cut.starts),), "float64"),
                "seconds": ((), "float64"),
            },
        )
        self.entry.append("times", front_end.frame_times(self.num_tokens))
        centres = [(start + cut.length / 2) / front_end.sample_rate for start in cut.starts]
        self.entry.append("excerpt_times", centres)
        self.entry.append("seconds", cut.num_samples / front_end.sample_rate)

    def add(self, start: int, class_token: Tensor, sequence: Tensor) -> None:
        """The next excerpt: class token (L, D) and sequence tokens (T, L, D)."""
        first = start // self.hop_length
        sequence = sequence[: self.num_tokens - first]
        total = sequence.sum(dim=0)
        self.entry.append("class_token", class_token)
        self.entry.append("average", (class_token + total) / (1 + len(sequence)))
        self.entry.append("sequence_mean", total / len(sequence))
        self.entry.append("sequence", self.joined.add(first, sequence))
        self.left -= 1
        if not self.left:
            self.entry.append("sequence", self.joined.rest())
            self.entry.finish()


@torch.inference_mode()
def _compute(
    backbone: Backbone,
    missing: dict[Path, Path],
    layers: Sequence[int],
    config: FeatureConfig,
    device: str,
    advance: Callable[[], None],
) -> None:
    """Fill the store: entries by path, each with its audio."""
    open_entries: dict[Path, _Stitcher] = {}
    try:
        for batch in excerpt_batches(backbone, missing, config.excerpt_hop, config.batch_size, advance):
            classes, sequences = _embedded(backbone, [waveform for *_, waveform in batch], layers, config, device)
            for (cut, start, _), class_token, sequence in zip(batch, classes, sequences):
                if cut.path not in open_entries:
                    open_entries[cut.path] = _Stitcher(cut, backbone, len(layers), config.precision)
                open_entries[cut.path].add(start, class_token, sequence)
                if not open_entries[cut.path].left:
                    del open_entries[cut.path]
                    advance()
    finally:
        for stitcher in open_entries.values():
            stitcher.entry.abandon()


def _embedded(
    backbone: Backbone, waveforms: list[Tensor], layers: Sequence[int], config: FeatureConfig, device: str
) -> tuple[Tensor, Tensor]:
    """Class tokens (e, L, D) and sequence tokens (e, T, L, D) of excerpts of one length, on the CPU in float32."""
    output = backbone(stacked(waveforms, backbone.num_samples, config.batch_size).to(device), layers)
    classes = torch.stack([output.class_token[layer] for layer in layers], dim=1)
    tokens = torch.stack([output.sequence[layer] for layer in layers], dim=2)
    return classes.float().cpu(), tokens.float().cpu()


def _load(path: Path) -> TrackFeatures:
    tensors = read_entry(path)
    if tensors is None:
        raise InputError(f"{path}: gone from the feature store while it was wanted (pruned?); run again")
    return TrackFeatures(**{field.name: tensors[field.name] for field in fields(TrackFeatures)})
