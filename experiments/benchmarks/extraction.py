"""Extraction of features, beside the loop one writes first, and beside the forward pass that nothing can do without.

Ours reads, encodes, stitches and stores every layer, into an empty store each time. The plain loop loads each track
whole with librosa and encodes its excerpts, the same ones, one by one; it keeps all layers in memory and writes none.
The forward pass encodes the same number of batches from memory. Decoding is soundfile reading each track whole, alone;
ours decodes in a thread beside the network, so what is left of its time is not simply the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import librosa
import soundfile
import torch
from frame import Measurement, Settings, alternated, fresh_cache
from torch import Tensor

from musictf.audio.io import audio_info
from musictf.datasets.base import Track
from musictf.features.excerpting import excerpt_starts
from musictf.features.extract import FeatureConfig, extract
from musictf.models.backbone import Backbone

TARGET_LOOP = 10.0
TARGET_FORWARD = 0.8  # of the time of an extraction


def measure(settings: Settings) -> list[Measurement]:
    """Time extraction, the plain loop, the forward pass and decoding, in turn."""
    number, rounds = (3, 1) if settings.quick else (24, 3)
    tracks, backbone, config = settings.corpus.tracks("train")[:number], settings.backbone(), FeatureConfig()
    layers = list(range(backbone.depth + 1))
    excerpts = sum(len(starts(track, backbone, config)) for track in tracks)
    batches = from_memory(tracks, backbone, config.batch_size, math.ceil(excerpts / config.batch_size))
    forward(batches[:1], backbone, layers, settings.device)  # whoever comes first would pay for the start

    def ours() -> None:
        with fresh_cache():
            extract(backbone, tracks, layers, config, settings.device)

    seconds = alternated(
        {
            "ours": ours,
            "loop": lambda: plain_loop(tracks, backbone, layers, config, settings.device),
            "forward": lambda: forward(batches, backbone, layers, settings.device),
            "decoding": lambda: [soundfile.read(track.audio, dtype="float32") for track in tracks],
        },
        rounds,
        settings.synchronize,
    )
    return rows(seconds, sum(audio_info(track.audio).seconds for track in tracks), len(tracks))


def starts(track: Track, backbone: Backbone, config: FeatureConfig) -> list[int]:
    """First samples of the excerpts of a track, those of our extraction."""
    grid = backbone.front_end.config.hop_length
    num_samples = audio_info(track.audio).num_samples(backbone.sample_rate)
    return excerpt_starts(num_samples, backbone.num_samples, config.excerpt_hop * grid, grid)


def from_memory(tracks: Sequence[Track], backbone: Backbone, batch_size: int, number: int) -> list[Tensor]:
    """Batches (B, N) of excerpts of the first track, as many as extraction needs."""
    waveform, _ = librosa.load(tracks[0].audio, sr=backbone.sample_rate)
    excerpt = torch.from_numpy(librosa.util.fix_length(waveform, size=backbone.num_samples))
    return [excerpt.expand(batch_size, -1).contiguous()] * number


@torch.inference_mode()
def forward(batches: Sequence[Tensor], backbone: Backbone, layers: Sequence[int], device: str) -> None:
    """Every layer of every batch, and nothing else."""
    for batch in batches:
        backbone(batch.to(device), layers)


@torch.inference_mode()
def plain_loop(
    tracks: Sequence[Track], backbone: Backbone, layers: Sequence[int], config: FeatureConfig, device: str
) -> list[list[Tensor]]:
    """Load a track, cut it, encode one excerpt after another, keep every layer."""
    kept = []
    for track in tracks:
        waveform, _ = librosa.load(track.audio, sr=backbone.sample_rate)
        for start in starts(track, backbone, config):
            excerpt = librosa.util.fix_length(waveform[start : start + backbone.num_samples], size=backbone.num_samples)
            output = backbone(torch.from_numpy(excerpt)[None].to(device), layers)
            every = [*output.class_token.values(), *output.sequence.values()]
            kept.append([tokens.half().cpu() for tokens in every])
    return kept


def rows(seconds: dict[str, float], audio_seconds: float, num_tracks: int) -> list[Measurement]:
    """What the times say."""
    speeds = {name: audio_seconds / value for name, value in seconds.items()}
    loop, share = speeds["ours"] / speeds["loop"], seconds["forward"] / seconds["ours"]
    about = f"{num_tracks} tracks, {audio_seconds / 60:.1f} min"
    unit = "s of audio / s"
    return [
        Measurement(
            name="speed",
            value=speeds["ours"],
            unit=unit,
            against=f"whole files by librosa, excerpts one by one: {speeds['loop']:.4g} ({about})",
            ratio=loop,
            target=TARGET_LOOP,
            met=loop >= TARGET_LOOP,
        ),
        Measurement(
            name="forward share",
            value=share,
            unit="of the time",
            against=f"as many batches from memory: {seconds['forward']:.4g} s of {seconds['ours']:.4g} s",
            target=TARGET_FORWARD,
            met=share > TARGET_FORWARD,
        ),
        Measurement(
            name="decoding alone",
            value=speeds["decoding"],
            unit=unit,
            against=f"soundfile reads each file whole: {seconds['decoding']:.4g} s of {seconds['ours']:.4g} s",
        ),
    ]
