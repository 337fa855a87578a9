"""Tracks in bins: musical dimensions and layers of a track on one time axis, ready to be compared.

Shapes:  N tokens   S bins   L layers   D features   F mel bands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import extract
from musictf.inspection.context import InspectionContext
from musictf.inspection.dimensions import Dimension, dimensions_of
from musictf.inspection.inspected_models import InspectedModel, repeated
from musictf.inspection.self_similarity import bin_width, binned
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES

Floats = npt.NDArray[np.float64]

# Layers of a track over its bins, (L, S, D), given its index in the split.
Layers = Callable[[int, "BinnedTrack"], Floats]


@dataclass(kw_only=True)
class SimilarityConfig:
    """How self-similarity matrices are made and compared; all of it is our choice.

    Attributes:
        bin_seconds: Length of a bin.
        max_bins: Largest number of bins of a track; longer tracks get longer bins.
        gap_seconds: Pairs of bins nearer than this are left out; by default an excerpt, within which tokens attend
            to each other.
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
class BinnedTrack:
    """One track in bins, with its musical dimensions.

    Attributes:
        track: The track.
        width: Tokens in a bin.
        gap: Bins between the nearest pairs that are compared.
        times: Centres of the bins in seconds, (S,).
        num_tokens: Tokens of the track, N.
        mel: Log-mel in decibels, (S, F).
        dimensions: Musical dimensions by name.
    """

    track: Track
    width: int
    gap: int
    times: Floats
    num_tokens: int
    mel: Floats
    dimensions: dict[str, Dimension]

    @property
    def bin_seconds(self) -> float:
        """Length of a bin; NaN with fewer than three, because the last bin may be shorter."""
        return float(self.times[1] - self.times[0]) if len(self.times) > 2 else float("nan")


def binned_tracks(
    context: InspectionContext, tracks: Sequence[Track], model: InspectedModel, config: SimilarityConfig
) -> Iterator[BinnedTrack]:
    """Tracks in bins, one after the other.

    Args:
        context: What the inspection shares.
        tracks: The tracks.
        model: A model whose front end gives the token times.
        config: Lengths of bins and gaps.

    Raises:
        InputError: a track is too short.
    """
    front_end = model.backbone.baseline_front_end
    stored = [
        extract(FRAME_CONTROL_CLASSES[name](front_end), tracks, [0], context.features, context.device)
        for name in ("mel", "mfcc", "chroma")
    ]
    for track, *features in zip(tracks, *stored, strict=True):
        times = features[0].times.numpy()
        mel, mfcc, chroma = (feature.sequence[:, 0].numpy() for feature in features)  # (N, ...), mapped from disk
        width = bin_width(len(times), front_end.hop_length / front_end.sample_rate, config.bin_seconds, config.max_bins)
        if len(times) < 4 * width:
            raise InputError(f"{track.audio}: lasts {times[-1]:.2f} s, too short to compare with itself")
        gap = round(config.gap_seconds * front_end.frame_rate / width)
        dimensions = dimensions_of(track, mel, mfcc, chroma, times, width)
        yield BinnedTrack(track, width, gap, binned(times, width), len(times), binned(mel, width), dimensions)


def layers_of(
    context: InspectionContext,
    model: InspectedModel,
    tracks: Sequence[Track],
    advance: Callable[[], None] = lambda: None,
) -> Layers:
    """Extract all layers of a model; the result gives those of one track over its bins, (L, S, D).

    Args:
        context: What the inspection shares.
        model: The model.
        tracks: Tracks of a split.
        advance: Called after each track.
    """
    layers = list(range(model.backbone.depth + 1))
    stored = extract(model.backbone, model.tracks(tracks), layers, context.features, context.device, advance)

    def binned_layers(index: int, binned_track: BinnedTrack) -> Floats:
        sequence = repeated(stored[index].sequence.numpy(), binned_track.num_tokens)  # (N, L, D), mapped from disk
        return binned(sequence, binned_track.width).transpose(1, 0, 2)

    return binned_layers
