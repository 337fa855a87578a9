"""Tracks in bins: what every comparison of layers with musical dimensions looks at.

Shapes:  N tokens   S bins   L layers   D features   F mel bands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import FeatureConfig, extract
from musictf.inspection.dimensions import Dimension, dimensions_of
from musictf.inspection.inspected_models import InspectedModel, repeated
from musictf.inspection.self_similarity import bin_width, binned
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES

Floats = npt.NDArray[np.float64]

# What gives the layers of a track over its bins, (L, S, D), by its place in the split.
Layers = Callable[[int, "TrackView"], Floats]


@dataclass(kw_only=True)
class SimilarityConfig:
    """How matrices are made and compared.

    Attributes:
        bin_seconds: Length of a bin.
        max_bins: Longer tracks get longer bins.
        gap_seconds: Pairs nearer than this are left out; by default an excerpt, in which tokens see each other.
        draws: Shifted and shuffled dimensions for each track.
    """

    bin_seconds: float = 0.25
    max_bins: int = 768
    gap_seconds: float = 4.0
    draws: int = 10

    def __post_init__(self) -> None:
        if self.bin_seconds <= 0 or self.gap_seconds < 0 or self.max_bins < 16 or self.draws < 1:
            raise InputError("similarity: bin_seconds > 0, gap_seconds >= 0, max_bins >= 16 and draws >= 1 are needed")


@dataclass
class TrackView:
    """One track in bins: what a subject makes of it is compared with what is known of it."""

    track: Track
    width: int  # tokens in a bin
    gap: int  # bins
    times: Floats  # centres of the bins in seconds, (S,)
    num_tokens: int
    mel: Floats  # (S, F)
    dimensions: dict[str, Dimension]

    @property
    def bin_seconds(self) -> float:
        """Length of a bin."""
        return float(self.times[1] - self.times[0]) if len(self.times) > 2 else float("nan")


def views(
    tracks: Sequence[Track], like: InspectedModel, config: SimilarityConfig, features: FeatureConfig, device: str
) -> Iterator[TrackView]:
    """Dimensions of tracks, one after the other."""
    front_end = like.backbone.front_end.config
    frames = [
        extract(FRAME_CONTROL_CLASSES[name](front_end), tracks, [0], features, device)
        for name in ("mel", "mfcc", "chroma")
    ]
    for track, *found in zip(tracks, *frames, strict=True):
        times = found[0].times.numpy()
        mel, mfcc, chroma = (each.sequence[:, 0].numpy() for each in found)  # mapped
        width = bin_width(len(times), front_end.hop_length / front_end.sample_rate, config.bin_seconds, config.max_bins)
        if len(times) < 4 * width:
            raise InputError(f"{track.audio}: lasts {times[-1]:.2f} s, too short to compare with itself")
        gap = round(config.gap_seconds * front_end.frame_rate / width)
        dimensions = dimensions_of(track, mel, mfcc, chroma, times, width)
        yield TrackView(track, width, gap, binned(times, width), len(times), binned(mel, width), dimensions)


def layers_of(
    subject: InspectedModel, tracks: Sequence[Track], features: FeatureConfig, device: str, advance: Callable[[], None]
) -> Layers:
    """What gives a subject's layers over the bins of a track, by its place, (L, S, D)."""
    layers = list(range(subject.backbone.depth + 1))
    stored = extract(subject.backbone, subject.tracks(tracks), layers, features, device, advance)

    def binned_layers(place: int, view: TrackView) -> Floats:
        sequence = repeated(stored[place].sequence.numpy(), view.num_tokens)  # (N, L, D), mapped
        return binned(sequence, view.width).transpose(1, 0, 2)

    return binned_layers
