"""Who is looked at: the backbone that was asked for, and what could refute it.

``random``     the same shape with untrained weights, others for each seed
``silence``    the same backbone, fed silence in place of each track: what positions alone explain
``noise``      the same backbone, fed white noise: what positions and any input explain
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from musictf.audio.io import audio_info
from musictf.datasets.base import SPLITS, Dataset, Track, split_digest
from musictf.errors import InputError
from musictf.evaluation.probed_models import probed_models
from musictf.files import cache_folder, write_atomically
from musictf.models.backbone import Backbone
from musictf.models.frame_controls import FrameControl
from musictf.models.resolve import backbone_source, encoder_with_attention
from musictf.models.vit1d import ViT1DConfig
from musictf.results.rows import BackboneField

# Longer tracks hear the same minutes of silence and noise again: their tokens repeat with the excerpts anyway.
_LONGEST_SECONDS = 120.0
_NOISE_LEVEL = 0.1


@dataclass
class InspectedModel:
    """A backbone and what it hears.

    Attributes:
        backbone: Its weights.
        kind: ``pretrained``, or one of `musictf.results.names.INSPECTION_CONTROLS`.
        seed: Of random weights; 0 for the others.
        about: Field ``backbone`` of the rows.
        hears: What it hears in place of each track; None: the tracks.
    """

    backbone: Backbone | FrameControl
    kind: str
    seed: int
    about: BackboneField
    replacement_audio: Track | None = None

    def tracks(self, asked: Sequence[Track]) -> list[Track]:
        """What is fed to the backbone where a corpus has these tracks."""
        return list(asked) if self.replacement_audio is None else [self.replacement_audio] * len(asked)


@dataclass
class Corpus:
    """Tracks that are looked at: choices are made on ``valid``, told is ``test``."""

    label: str
    tracks: dict[str, list[Track]]
    expected: dict[str, int]

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the test split."""
        return split_digest(self.tracks["test"])

    def groups(self, kept: Sequence[int]) -> list[str]:
        """Group of each of these test tracks; intervals are drawn over groups."""
        tracks = [self.tracks["test"][place] for place in kept]
        return [track.group or track.track_id for track in tracks]


def corpus_of(dataset: Dataset, allow_missing: bool) -> Corpus:
    """Validation and test tracks of a corpus.

    Raises:
        InputError: a split is empty, or, without ``allow_missing``, audio is missing.
    """
    every = {name: dataset.tracks(name) for name in SPLITS if name != "train"}
    there = {name: [track for track in tracks if track.audio.is_file()] for name, tracks in every.items()}
    for name, tracks in there.items():
        lacking = len(every[name]) - len(tracks)
        if lacking and not allow_missing:
            raise InputError(
                f"{dataset.label}: {lacking} of {len(every[name])} {name} tracks have no audio file; "
                "allow_missing=true goes on with the rest, and the rows say so"
            )
        if not tracks:
            raise InputError(
                f"{dataset.label}: no {name} track: thresholds and heads are chosen on valid, scores are told on test; "
                "name both splits in a manifest.jsonl (dataset=manifest), labels are not needed"
            )
    return Corpus(dataset.label, there, {name: len(tracks) for name, tracks in every.items()})


def inspected_models(
    asked: str, like: str | None, model: ViT1DConfig, seeds: Sequence[int], controls: Sequence[str], corpus: Corpus
) -> list[InspectedModel]:
    """The backbone that was asked for, and its controls.

    Args:
        asked: A backbone file, a run folder, or ``random``.
        like: A backbone whose shape ``random`` has.
        model: Shape of ``random`` without ``like``.
        seeds: Of random weights.
        controls: Any of `musictf.results.names.INSPECTION_CONTROLS`.
        corpus: Whose longest track silence and noise must last.

    Raises:
        InputError: there is no such backbone, or it has no attention.
    """
    found = probed_models(backbone_source(asked), like, model, seeds, ["random"] if "random" in controls else [])
    subjects = [
        InspectedModel(
            encoder_with_attention(model.encoder, asked),
            model.kind,
            model.seeds[0] if model.kind == "random" else 0,
            model.about,
        )
        for model in found
    ]
    first = subjects[0]
    for name in ("silence", "noise"):
        if name in controls:
            track = _control_track(name, corpus, first.backbone.sample_rate)
            subjects.append(InspectedModel(first.backbone, name, 0, first.about | {"kind": name}, track))
    return subjects


def _control_track(name: str, corpus: Corpus, sample_rate: int) -> Track:
    """A file of silence or noise as long as the longest track, in the cache."""
    longest = max(audio_info(track.audio).seconds for tracks in corpus.tracks.values() for track in tracks)
    num_samples = round(min(longest, _LONGEST_SECONDS) * sample_rate)
    path = control_folder() / f"{name}_{num_samples}_{sample_rate}.wav"
    if not path.is_file():
        level = {"silence": 0.0, "noise": _NOISE_LEVEL}[name]
        write_atomically(path, wav_bytes(level * np.random.default_rng(0).standard_normal(num_samples), sample_rate))
    return Track(track_id=name, audio=path, split="test")


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A mono WAV file of 32-bit floats."""
    file = io.BytesIO()
    soundfile.write(file, waveform.astype(np.float32), sample_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def repeated(values: np.ndarray, number: int) -> np.ndarray:
    """The first ``number`` rows, from the start again where there are fewer."""
    return values if len(values) == number else values[np.arange(number) % len(values)]


def control_folder() -> Path:
    """Where sounds that are no music are kept."""
    return cache_folder() / "controls"
