"""Frozen features: a whole track through a backbone once, stitched, timed, and kept on disk by content.

Shapes:  L layers   E excerpts of a track   K tokens of a track   D embedding

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times and are
averaged there, those near an excerpt's edge counting less. A cache entry is named by what made it: weights and front
end, extractor version, audio content, layers, hop and precision.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import safetensors
import torch
from rich.progress import track as progress
from safetensors.torch import load_file, save_file
from torch import Tensor

from musictf.audio.io import audio_info, read_excerpt
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.runs import cache_folder, file_digest

EXTRACTOR_VERSION = 1


@dataclass(kw_only=True)
class FeatureConfig:
    """How tracks are cut; ``excerpt_hop`` in tokens (63 is half an excerpt of 126)."""

    excerpt_hop: int = 63
    precision: str = "float16"
    batch_size: int = 16

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


def extract(
    backbone: Backbone, tracks: Sequence[Track], layers: Sequence[int], config: FeatureConfig, device: str = "cpu"
) -> Iterator[TrackFeatures]:
    """Features of tracks, in order, from the cache where it has them; a progress bar where it does not."""
    identity = {
        "backbone": backbone.digest(),
        "extractor": EXTRACTOR_VERSION,
        "layers": list(layers),
        "excerpt_hop": config.excerpt_hop,
        "precision": config.precision,
    }
    paths = [_entry(identity, track.audio) for track in tracks]
    missing = [(track, path) for track, path in zip(tracks, paths, strict=True) if not path.is_file()]
    if missing:
        backbone = backbone.to(device).eval()
        description = f"features of {len(missing)} tracks ({backbone.kind})"
        for track, path in progress(missing, description, transient=True):
            _save(track_features(backbone, track.audio, layers, config, device), path, config.precision)
    for path in paths:
        yield _load(path)


@torch.inference_mode()
def track_features(
    backbone: Backbone, audio: Path, layers: Sequence[int], config: FeatureConfig, device: str = "cpu"
) -> TrackFeatures:
    """Features of one whole track, computed.

    Raises:
        InputError: the audio cannot be read, or is shorter than one spectrogram window.
    """
    front_end = backbone.front_end.config
    if config.excerpt_hop * front_end.hop_length > backbone.num_samples:
        raise InputError(
            f"features.excerpt_hop={config.excerpt_hop} tokens leaves gaps between excerpts of "
            f"{backbone.num_samples // front_end.hop_length}; make it smaller"
        )
    num_samples = audio_info(audio).num_samples(backbone.sample_rate)
    if num_samples < front_end.n_fft:
        raise InputError(f"{audio}: lasts {num_samples / backbone.sample_rate:.3f} s, too short for one window")
    starts = excerpt_starts(
        num_samples, backbone.num_samples, config.excerpt_hop * front_end.hop_length, front_end.hop_length
    )
    num_tokens = front_end.num_frames(num_samples)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    total, weight = None, torch.zeros(num_tokens, dtype=torch.float32)
    for group in _batches(starts, config.batch_size):
        waveforms = _waveforms(backbone, audio, group, num_samples)
        output = backbone(waveforms.to(device), layers)
        classes = torch.stack([output.class_token[layer] for layer in layers], dim=1).float().cpu()  # (e, L, D)
        tokens = torch.stack([output.sequence[layer] for layer in layers], dim=2).float().cpu()  # (e, T, L, D)
        for start, class_token, sequence in zip(group, classes, tokens, strict=True):
            first = start // front_end.hop_length
            sequence = sequence[: num_tokens - first]
            mean = sequence.mean(dim=0)
            parts.append((class_token, (class_token + sequence.sum(dim=0)) / (1 + len(sequence)), mean))
            if total is None:
                total = torch.zeros(num_tokens, *sequence.shape[1:])
            taper = edge_taper(len(sequence))
            total[first : first + len(sequence)] += taper[:, None, None] * sequence
            weight[first : first + len(sequence)] += taper
    assert total is not None
    length = min(backbone.num_samples, num_samples)
    class_token, average, sequence_mean = (torch.stack(column) for column in zip(*parts, strict=True))
    return TrackFeatures(
        class_token,
        average,
        sequence_mean,
        total / weight[:, None, None],
        torch.from_numpy(front_end.frame_times(num_tokens)),
        torch.tensor([(start + length / 2) / backbone.sample_rate for start in starts], dtype=torch.float64),
        torch.tensor(num_samples / backbone.sample_rate, dtype=torch.float64),
    )


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


def _waveforms(backbone: Backbone, audio: Path, starts: Sequence[int], num_samples: int) -> Tensor:
    """Excerpts (e, N); the last may lack a part of one hop, filled with zeros whose tokens are dropped later."""
    front_end, length = backbone.front_end.config, min(backbone.num_samples, num_samples)
    waveforms = torch.zeros(len(starts), length)
    for row, start in zip(waveforms, starts, strict=True):
        present = min(length, num_samples - start)
        excerpt = read_excerpt(audio, start, present, front_end.sample_rate, front_end.normalise)
        row[:present] = torch.from_numpy(excerpt)
    return waveforms


def _batches(starts: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return (starts[first : first + size] for first in range(0, len(starts), size))


def _entry(identity: dict[str, object], audio: Path) -> Path:
    content = json.dumps(identity | {"audio": _audio_digest(str(audio), audio.stat().st_mtime_ns)}, sort_keys=True)
    name = hashlib.sha256(content.encode()).hexdigest()
    return cache_folder() / "features" / name[:2] / f"{name}.safetensors"


@functools.lru_cache(maxsize=65536)
def _audio_digest(path: str, modified: int) -> str:
    return file_digest(Path(path))


def _save(features: TrackFeatures, path: Path, precision: str) -> None:
    """Write atomically; embeddings in the asked precision, times always in float64."""
    dtype = torch.float16 if precision == "float16" else torch.float32
    tensors = {field.name: getattr(features, field.name) for field in fields(features)}
    stored = {name: (t if t.dtype == torch.float64 else t.to(dtype)).contiguous() for name, t in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(stored, str(temporary))
    os.replace(temporary, path)


def _load(path: Path) -> TrackFeatures:
    try:
        tensors = load_file(str(path))
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: damaged feature cache entry ({error}); delete it and run again") from None
    return TrackFeatures(**{field.name: tensors[field.name] for field in fields(TrackFeatures)})
