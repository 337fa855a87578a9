"""Frozen features: whole tracks through a backbone once, stitched, timed, and kept on disk by content.

Shapes:  L layers   E excerpts of a track   K tokens of a track   T tokens of an excerpt   D embedding

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times and are
averaged there, those near an excerpt's edge counting less. A batch holds excerpts of several tracks and always has the
same size, so a track's features do not depend on its neighbours. Audio is read ahead by a thread, a stretch of some
excerpts at a time, and tokens are written as soon as no later excerpt reaches them: memory grows with neither the
length of a track nor their number.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from musictf.audio.io import audio_info, read_excerpt
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.probing.store import EntryWriter, Extractor, read_entry
from musictf.runs import rank

EXTRACTOR_VERSION = 2
_STRETCH = 8  # excerpts that are read from a file at once
_READ_AHEAD = 4  # stretches


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
        _compute(backbone.to(device).eval(), _own_start(missing), layers, config, device, advance)
    return StoredFeatures(paths)


def excerpt_starts(num_samples: int, excerpt: int, hop: int, grid: int) -> list[int]:
    """First samples of overlapping excerpts that cover a track, all on the token grid.

    Args:
        num_samples: Length of the track.
        excerpt: Length of an excerpt.
        hop: Distance of excerpts, a multiple of ``grid``.
        grid: Samples between tokens.

    Example:
        >>> excerpt_starts(num_samples=100, excerpt=40, hop=20, grid=10)
        [0, 20, 40, 60]
    """
    last = max(0, -(-(num_samples - excerpt) // grid) * grid)
    return [*range(0, last, hop), last]


def edge_taper(num_tokens: int) -> Tensor:
    """Weights of an excerpt's tokens where excerpts overlap, (num_tokens,): a triangle, above 0 at the edges."""
    ramp = torch.arange(1, num_tokens + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


@dataclass
class _Cut:
    """A track and where its excerpts of ``length`` start, in samples at the backbone's rate."""

    path: Path  # of the entry
    audio: Path
    num_samples: int
    length: int
    starts: list[int]


_Excerpt = tuple[_Cut, int, Tensor]  # a track, the start of an excerpt and its waveform (N,)


class _Stitcher:
    """Joins the excerpts of one track as they come, and writes what no later one can change."""

    def __init__(self, cut: _Cut, backbone: Backbone, num_layers: int, precision: str) -> None:
        front_end = backbone.front_end.config
        self.hop_length = front_end.hop_length
        self.num_tokens = front_end.num_frames(cut.num_samples)
        self.left = len(cut.starts)
        self.first = 0  # token that the pending ones begin with
        self.total = torch.zeros(0, num_layers, backbone.embed_dim)
        self.weight = torch.zeros(0)
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
        self._flush(first)
        missing = len(sequence) - len(self.total)
        self.total = torch.cat([self.total, torch.zeros(missing, *sequence.shape[1:])])
        self.weight = torch.cat([self.weight, torch.zeros(missing)])
        taper = edge_taper(len(sequence))
        self.total += taper[:, None, None] * sequence
        self.weight += taper
        self.left -= 1
        if not self.left:
            self._flush(self.num_tokens)
            self.entry.finish()

    def _flush(self, token: int) -> None:
        """Write the pending tokens before this one."""
        ready = token - self.first
        if ready > 0:
            self.entry.append("sequence", self.total[:ready] / self.weight[:ready, None, None])
        self.total, self.weight, self.first = self.total[ready:], self.weight[ready:], token


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
        stretches = _read_ahead(_stretches(backbone, missing, config, advance))
        for batch in _batches(stretches, config.batch_size, backbone.num_samples):
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
    stacked = torch.stack(waveforms)
    if stacked.shape[1] == backbone.num_samples:
        # Always the same size: a product of another shape may round in another way.
        stacked = F.pad(stacked, (0, 0, 0, config.batch_size - len(stacked)))
    output = backbone(stacked.to(device), layers)
    classes = torch.stack([output.class_token[layer] for layer in layers], dim=1)
    tokens = torch.stack([output.sequence[layer] for layer in layers], dim=2)
    return classes.float().cpu(), tokens.float().cpu()


def _batches(stretches: Iterable[list[_Excerpt]], size: int, longest: int) -> Iterator[list[_Excerpt]]:
    """Whole batches across tracks; a track shorter than an excerpt goes alone, for its length is its own."""
    waiting: list[_Excerpt] = []
    for excerpts in stretches:
        if excerpts[0][0].length < longest:
            yield excerpts
            continue
        waiting += excerpts
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _stretches(
    backbone: Backbone, missing: dict[Path, Path], config: FeatureConfig, advance: Callable[[], None]
) -> Iterator[list[_Excerpt]]:
    """Excerpts of track after track, some neighbouring ones read at once."""
    front_end = backbone.front_end.config
    for path, audio in missing.items():
        if read_entry(path) is not None:  # somebody else was faster
            advance()
            continue
        cut = _cut(backbone, path, audio, config.excerpt_hop)
        for first in range(0, len(cut.starts), _STRETCH):
            starts = cut.starts[first : first + _STRETCH]
            waveform = torch.zeros(starts[-1] + cut.length - starts[0])
            present = min(len(waveform), cut.num_samples - starts[0])
            read = read_excerpt(audio, starts[0], present, front_end.sample_rate, front_end.normalise)
            # The last excerpt may lack a part of one hop: zeros, whose tokens are dropped later.
            waveform[:present] = torch.from_numpy(read)
            yield [(cut, start, waveform[start - starts[0] :][: cut.length]) for start in starts]


def _cut(backbone: Backbone, path: Path, audio: Path, excerpt_hop: int) -> _Cut:
    front_end = backbone.front_end.config
    num_samples = audio_info(audio).num_samples(backbone.sample_rate)
    if num_samples < front_end.n_fft:
        raise InputError(f"{audio}: lasts {num_samples / backbone.sample_rate:.3f} s, too short for one window")
    hop = excerpt_hop * front_end.hop_length
    if hop > backbone.num_samples:
        raise InputError(
            f"features.excerpt_hop={excerpt_hop} tokens leaves gaps between excerpts of "
            f"{backbone.num_samples // front_end.hop_length}; make it smaller"
        )
    starts = excerpt_starts(num_samples, backbone.num_samples, hop, front_end.hop_length)
    return _Cut(path, audio, num_samples, min(backbone.num_samples, num_samples), starts)


def _read_ahead(items: Iterator[list[_Excerpt]]) -> Iterator[list[_Excerpt]]:
    """The same items, the next few made by a thread meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        ahead = deque(reader.submit(next, items, None) for _ in range(_READ_AHEAD))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, items, None))
            yield item


def _own_start(missing: dict[Path, Path]) -> dict[Path, Path]:
    """The same entries from another one on: ranks and processes that work side by side share the work."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    turn = rank() * len(missing) // ranks if ranks > 1 else os.getpid() % len(missing)
    entries = list(missing.items())
    return dict(entries[turn:] + entries[:turn])


def _load(path: Path) -> TrackFeatures:
    tensors = read_entry(path)
    if tensors is None:
        raise InputError(f"{path}: gone from the feature store while it was wanted (pruned?); run again")
    return TrackFeatures(**{field.name: tensors[field.name] for field in fields(TrackFeatures)})
