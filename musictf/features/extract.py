"""Frozen features: whole tracks through an encoder once, stitched, timed, and kept on disk by content.

Shapes:  L layers   E excerpts of a track   K tokens of a track   T tokens of an excerpt   D embedding   B batch

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times and are
averaged there; tokens near an excerpt's edge count less. A batch holds excerpts of several tracks and always has the
same size, so a track's features do not depend on its neighbours. Tokens are written as soon as no later excerpt
reaches them: memory grows with neither the length of a track nor the number of tracks.

`extract` stores embeddings. An `OutputReducer` states what is stored of an encoder's output, so that `stored` processes
the tracks in the same way for embeddings and for attention curves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.excerpting import ExcerptPlan, OverlapAverage, excerpt_batches, stacked
from musictf.features.store import EntryWriter, Extractor, read_entry
from musictf.models.encoder import Encoder, Output

EXTRACTOR_VERSION = 3


@dataclass(kw_only=True)
class FeatureConfig:
    """How tracks are cut into excerpts, and how features are stored.

    Attributes:
        excerpt_hop: Tokens between excerpts (63 is half an excerpt of 126).
        precision: Of stored embeddings, ``float16`` or ``float32``; times are float64.
        batch_size: Excerpts that go through the encoder at once.
        memory_gib: Features of a split larger than this are read from disk in training, GiB.
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


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a stored track.

    Attributes:
        shape: Of one row.
        dtype: ``float16``, ``float32`` or ``float64``.
        by_token: One row a token, stitched over the track; otherwise one row an excerpt.
    """

    shape: tuple[int, ...]
    dtype: str
    by_token: bool = False


class OutputReducer(Protocol):
    """Which tensors of an encoder's output are stored, and how they are computed."""

    @property
    def attention(self) -> bool:
        """Whether attention maps are needed."""

    @property
    def layers(self) -> Sequence[int] | None:
        """Layers that are needed; None: the last."""

    def identity(self, encoder: Encoder) -> dict[str, Any]:
        """What is computed besides weights and audio: part of the entry's name in the store."""

    def tensors(self, encoder: Encoder) -> Mapping[str, TensorSpec]:
        """Shapes of the tensors stored for a track, besides its ``times`` (K,)."""

    def reduced(self, output: Output) -> dict[str, Tensor]:
        """The part of the output of a batch that is needed, tensors (B, ...) on the CPU in float32."""

    def rows(self, reduced: Mapping[str, Tensor], index: int, num_tokens: int) -> dict[str, Tensor]:
        """Rows of one excerpt of the batch, (1, ...) or (num_tokens, ...), of its first ``num_tokens`` tokens."""


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
    """Features of tracks in the store. Each is mapped only when it is read, because a process has a limit of maps."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> TrackFeatures: ...
    @overload
    def __getitem__(self, index: slice) -> StoredFeatures: ...
    def __getitem__(self, index: int | slice) -> TrackFeatures | StoredFeatures:
        if isinstance(index, slice):
            return StoredFeatures(self.paths[index])
        tensors = stored_tensors(self.paths[index])
        return TrackFeatures(**{field.name: tensors[field.name] for field in fields(TrackFeatures)})


@dataclass(frozen=True)
class Embeddings:
    """Class token, temporal average and sequence tokens of some layers."""

    layers: Sequence[int]
    precision: str
    attention: bool = False

    def identity(self, encoder: Encoder) -> dict[str, Any]:
        return {"preset": encoder.name, "layers": list(self.layers), "precision": self.precision}

    def tensors(self, encoder: Encoder) -> dict[str, TensorSpec]:
        shape = (len(self.layers), encoder.embed_dim)
        by_excerpt = TensorSpec(shape, self.precision)
        return {
            "class_token": by_excerpt,
            "average": by_excerpt,
            "sequence_mean": by_excerpt,
            "sequence": TensorSpec(shape, self.precision, by_token=True),
        }

    def reduced(self, output: Output) -> dict[str, Tensor]:
        sequence = torch.stack([output.sequence[layer] for layer in self.layers], dim=2)  # (B, T, L, D)
        reduced = {"sequence": sequence.float().cpu()}
        if output.class_token:
            classes = torch.stack([output.class_token[layer] for layer in self.layers], dim=1)  # (B, L, D)
            reduced["class_token"] = classes.float().cpu()
        return reduced

    def rows(self, reduced: Mapping[str, Tensor], index: int, num_tokens: int) -> dict[str, Tensor]:
        sequence = reduced["sequence"][index][:num_tokens]  # (T, L, D)
        total = sequence.sum(dim=0)
        mean = total / len(sequence)
        if "class_token" in reduced:
            class_token = reduced["class_token"][index]
            average = (class_token + total) / (1 + len(sequence))
        else:  # without a class token: a placeholder that no readout uses, and an average over the sequence alone
            class_token, average = torch.zeros_like(mean), mean
        by_excerpt = {"class_token": class_token, "average": average, "sequence_mean": mean}
        return {name: row[None] for name, row in by_excerpt.items()} | {"sequence": sequence}


def extract(
    encoder: Encoder,
    tracks: Sequence[Track],
    layers: Sequence[int],
    config: FeatureConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> StoredFeatures:
    """Embeddings of tracks, in order, mapped from the store when read; computed first where the store lacks them.

    Args:
        encoder: What computes them.
        tracks: The tracks.
        layers: Numbers of layers.
        config: How tracks are cut.
        device: Where the encoder runs.
        advance: Called once for each track that is done.
    """
    return StoredFeatures(stored(encoder, tracks, Embeddings(layers, config.precision), config, device, advance))


def stored(
    encoder: Encoder,
    tracks: Sequence[Track],
    reducer: OutputReducer,
    config: FeatureConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Entries of tracks in the feature store, in order; computed where the store lacks them.

    Several processes may do this at once, ranks of one run included. Each starts at another track and skips the tracks
    that another process has finished.

    Args:
        encoder: What computes them.
        tracks: The tracks.
        reducer: Computes what is stored of the encoder's output.
        config: How tracks are cut.
        device: Where the encoder runs.
        advance: Called once for each track that is done.
    """
    identity = {
        "backbone": encoder.digest(),
        "kind": encoder.kind,
        "version": EXTRACTOR_VERSION,
        "excerpt_hop": config.excerpt_hop,
    }
    extractor = Extractor.of(identity | reducer.identity(encoder))
    paths = [extractor.entry(track.audio) for track in tracks]
    missing = {path: track.audio for track, path in zip(tracks, paths, strict=True) if read_entry(path) is None}
    for _ in range(len(paths) - len(missing)):
        advance()
    if missing:
        _compute(encoder.to(device).eval(), missing, reducer, config, device, advance)
    return paths


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of an entry that `stored` has made, by name, mapped; shapes as in `TrackFeatures` for `Embeddings`.

    Raises:
        InputError: another process has deleted it meanwhile.
    """
    tensors = read_entry(path)
    if tensors is None:
        raise InputError(f"{path}: deleted from the feature store while it was in use (pruned?); run again")
    return tensors


@torch.inference_mode()
def _compute(
    encoder: Encoder,
    missing: dict[Path, Path],
    reducer: OutputReducer,
    config: FeatureConfig,
    device: str,
    advance: Callable[[], None],
) -> None:
    """Fill the store: entries by path, each with its audio."""
    open_entries: dict[Path, _Stitcher] = {}
    try:
        for batch in excerpt_batches(encoder, missing, config.excerpt_hop, config.batch_size, advance):
            waveforms = stacked([waveform for *_, waveform in batch], encoder.num_samples, config.batch_size)
            reduced = reducer.reduced(encoder(waveforms.to(device), reducer.layers, reducer.attention))
            for index, (plan, start, _) in enumerate(batch):  # padding at the end of the batch is ignored
                if plan.entry not in open_entries:
                    open_entries[plan.entry] = _Stitcher(plan, encoder, reducer.tensors(encoder))
                stitcher = open_entries[plan.entry]
                stitcher.add(start, reducer.rows(reduced, index, stitcher.num_tokens_from(start)))
                if not stitcher.excerpts_left:
                    del open_entries[plan.entry]
                    advance()
    finally:
        for stitcher in open_entries.values():
            stitcher.entry.abandon()


class _Stitcher:
    """Joins the excerpts of one track in order, and writes the rows that no later excerpt can change."""

    def __init__(self, plan: ExcerptPlan, encoder: Encoder, tensors: Mapping[str, TensorSpec]) -> None:
        self.grid = encoder.grid
        self.num_tokens = self.grid.num_tokens(plan.num_samples)
        self.excerpts_left = len(plan.starts)
        self.joined = {name: OverlapAverage() for name, spec in tensors.items() if spec.by_token}
        lengths = {name: self.num_tokens if spec.by_token else len(plan.starts) for name, spec in tensors.items()}
        shapes = {name: ((lengths[name], *spec.shape), spec.dtype) for name, spec in tensors.items()}
        shapes |= {"times": ((self.num_tokens,), "float64"), "seconds": ((), "float64")}
        shapes |= {"excerpt_times": ((len(plan.starts),), "float64")}
        self.entry = EntryWriter(plan.entry, shapes)
        self.entry.append("times", self.grid.times(self.num_tokens))
        centres = [(start + plan.length / 2) / self.grid.sample_rate for start in plan.starts]
        self.entry.append("excerpt_times", centres)
        self.entry.append("seconds", plan.num_samples / self.grid.sample_rate)

    def num_tokens_from(self, start: int) -> int:
        """Tokens of the track from sample ``start`` to its end."""
        return self.num_tokens - start // self.grid.hop_length

    def add(self, start: int, rows: Mapping[str, Tensor]) -> None:
        """Add the rows of the excerpt that starts at sample ``start``: by name, (1, ...) or (T, ...)."""
        self.excerpts_left -= 1
        for name, values in rows.items():
            ready = self.joined[name].add(start // self.grid.hop_length, values) if name in self.joined else values
            self.entry.append(name, ready)
        if not self.excerpts_left:
            for name, joined in self.joined.items():
                self.entry.append(name, joined.rest())
            self.entry.finish()
