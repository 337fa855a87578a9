"""Onset curves: the attention maps of each head reduced to curves over the tokens of a track.

The paper shows onsets in attention maps; how it reads them is not public. These three curves are our choice:

``received``   attention that a token receives from the sequence tokens, 1 if attention is even (class row left out)
``class_row``  attention from the class token to a token, 1 if attention is even
``change``     how much the attention of neighbouring queries differs at a token: total variation, 0 to 1

Shapes:  B batch   L blocks   H heads   K = 1 + T tokens of an excerpt   C curves   N tokens of a track

Maps are computed exactly, because fused kernels return none. Each batch of maps is reduced to curves at once, and
curves are stitched over the track like features, so memory does not grow with the length of the track.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.excerpting import ExcerptPlan, OverlapAverage, excerpt_batches, stacked
from musictf.features.extract import EXTRACTOR_VERSION, FeatureConfig
from musictf.features.store import EntryWriter, Extractor, read_entry
from musictf.models.backbone import Backbone

CURVES = ("received", "class_row", "change")
CURVES_VERSION = 1


@dataclass
class TrackCurves:
    """Curves of every block and head over a track."""

    values: npt.NDArray[np.float32]  # (N, L, H, C), blocks 1 to depth
    times: npt.NDArray[np.float64]  # token centres in seconds, (N,)


def onset_curves(attention: Tensor) -> Tensor:
    """Curves of attention maps, (B, H, K, K) -> (B, H, C, T); rows are queries, token 0 is the class token.

    Example:
        >>> onset_curves(torch.full((1, 1, 5, 5), 0.2))[0, 0, :, 0]  # even attention, a fifth of it to the class token
        tensor([0.8000, 0.8000, 0.0000])
    """
    among = attention[:, :, 1:, 1:]  # (B, H, T, T)
    num_tokens = among.shape[-1]
    # Times T: the values do not depend on the length of the excerpt.
    received = num_tokens * among.mean(dim=2)  # (B, H, T)
    class_row = num_tokens * attention[:, :, 0, 1:]
    steps = 0.5 * (among[:, :, 1:] - among[:, :, :-1]).abs().sum(dim=-1)  # between a token and the next, (B, H, T - 1)
    # A token's centre lies half way between two steps; the first and the last token have a step on one side only.
    before, after = (torch.cat(pair, dim=-1) for pair in ((steps[..., :1], steps), (steps, steps[..., -1:])))
    change = 0.5 * (before + after)
    return torch.stack([received, class_row, change], dim=2)


def track_curves(
    backbone: Backbone,
    tracks: Sequence[Track],
    config: FeatureConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Curves of whole tracks, in the feature store; computed where it lacks them. `read_curves` reads one.

    Args:
        backbone: With an encoder.
        tracks: Whose curves.
        config: How tracks are cut into excerpts.
        device: Where the backbone runs.
        advance: Called once for each track that is done.

    Raises:
        InputError: the backbone has no attention, or a track is shorter than two tokens.
    """
    if backbone.depth == 0:
        raise InputError(f"backbone={backbone.kind} has no attention to look at")
    extractor = Extractor.of(
        {
            "backbone": backbone.digest(),
            "kind": backbone.kind,
            "preset": f"{backbone.name}, attention curves",
            "version": EXTRACTOR_VERSION,
            "curves_version": CURVES_VERSION,
            "layers": list(range(1, backbone.depth + 1)),
            "excerpt_hop": config.excerpt_hop,
            "precision": "float32",
        }
    )
    paths = [extractor.entry(track.audio) for track in tracks]
    missing = {path: track.audio for track, path in zip(tracks, paths, strict=True) if read_entry(path) is None}
    for _ in range(len(paths) - len(missing)):
        advance()
    if missing:
        _compute(backbone.to(device).eval(), missing, config, device, advance)
    return paths


def read_curves(path: Path) -> TrackCurves:
    """Curves of one track from the store.

    Raises:
        InputError: the entry was removed from the store since it was computed.
    """
    tensors = read_entry(path)
    if tensors is None:
        raise InputError(f"{path}: gone from the feature store during the run (pruned?); run again")
    return TrackCurves(tensors["curves"].numpy(), tensors["times"].numpy())


class _Joining:
    """Curves of one track as its excerpts come, written as soon as no later one can change them."""

    def __init__(self, cut: ExcerptPlan, backbone: Backbone) -> None:
        front_end, encoder = backbone.front_end.config, backbone.encoder.config
        self.hop_length = front_end.hop_length
        self.num_tokens = front_end.num_frames(cut.num_samples)
        if self.num_tokens < 2:
            raise InputError(f"{cut.audio}: lasts one token only, too short to look at")
        self.left = len(cut.starts)
        self.joined = OverlapAverage()
        shape = (self.num_tokens, encoder.depth, encoder.num_heads, len(CURVES))
        self.entry = EntryWriter(cut.path, {"curves": (shape, "float32"), "times": ((self.num_tokens,), "float64")})
        self.entry.append("times", front_end.frame_times(self.num_tokens))

    def add(self, start: int, curves: Tensor) -> None:
        """The next excerpt, (T, L, H, C)."""
        first = start // self.hop_length
        self.entry.append("curves", self.joined.add(first, curves[: self.num_tokens - first]))
        self.left -= 1
        if not self.left:
            self.entry.append("curves", self.joined.rest())
            self.entry.finish()


@torch.inference_mode()
def _compute(
    backbone: Backbone, missing: dict[Path, Path], config: FeatureConfig, device: str, advance: Callable[[], None]
) -> None:
    open_tracks: dict[Path, _Joining] = {}
    try:
        for batch in excerpt_batches(backbone, missing, config.excerpt_hop, config.batch_size, advance):
            waveforms = stacked([waveform for *_, waveform in batch], backbone.num_samples, config.batch_size)
            maps = backbone(waveforms.to(device), attention=True).attention
            curves = torch.stack([onset_curves(maps[layer].float()) for layer in sorted(maps)], dim=1).cpu()
            for (cut, start, _), of_excerpt in zip(batch, curves):  # padding is left over
                if cut.path not in open_tracks:
                    open_tracks[cut.path] = _Joining(cut, backbone)
                open_tracks[cut.path].add(start, of_excerpt.permute(3, 0, 1, 2))
                if not open_tracks[cut.path].left:
                    del open_tracks[cut.path]
                    advance()
    finally:
        for track in open_tracks.values():
            track.entry.abandon()
