"""The models of an inspection: the requested backbone, its controls, and baselines without an encoder.

``random``     the same shape with untrained weights, different for each seed
``silence``    the same backbone, fed silence in place of each track: what positions alone explain
``noise``      the same backbone, fed white noise: what positions and any input explain

Silence and noise are our choice of controls. Baselines are the frame features ``mel``, ``mfcc`` and ``chroma``, and
``flux``, the spectral flux.

Shapes:  N samples or rows
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from musictf.audio.front_end import FrontEndConfig
from musictf.audio.io import audio_info
from musictf.datasets.base import SPLITS, Dataset, Track, split_digest
from musictf.errors import InputError
from musictf.evaluation.probed_models import probed_models
from musictf.files import cache_folder, write_atomically
from musictf.models.backbone_source import BackboneSource, encoder_with_attention
from musictf.models.encoder import Encoder
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES
from musictf.models.vit1d import ViT1DConfig
from musictf.results.rows import BackboneField

# For longer tracks the tokens of these seconds of silence and noise are repeated: they differ little by excerpt.
_LONGEST_SECONDS = 120.0
_NOISE_LEVEL = 0.1  # standard deviation, of full scale


@dataclass
class InspectedModel:
    """A backbone with the audio that it reads.

    Attributes:
        backbone: The encoder; that of a baseline has depth 0.
        kind: ``pretrained``, one of `INSPECTION_CONTROLS`, or that of a `baseline`.
        seed: Seed of random weights; 0 for the others.
        backbone_field: Field ``backbone`` of the rows.
        replacement_audio: Track that the backbone reads in place of every track; None: it reads the music itself.
    """

    backbone: Encoder
    kind: str
    seed: int
    backbone_field: BackboneField
    replacement_audio: Track | None = None

    @property
    def reads_music(self) -> bool:
        """Whether the backbone reads the tracks themselves."""
        return self.replacement_audio is None

    def tracks(self, tracks: Sequence[Track]) -> list[Track]:
        """The track that the backbone reads for each of these tracks."""
        return list(tracks) if self.replacement_audio is None else [self.replacement_audio] * len(tracks)


def baseline(name: str, front_end: FrontEndConfig) -> InspectedModel:
    """A baseline without an encoder.

    Args:
        name: ``mel``, ``mfcc``, ``chroma`` or ``flux``.
        front_end: Front end whose token times the baseline has.
    """
    # The spectral flux has no frames of its own: it is computed from the mel frames.
    kind, frames = ("classical", "mel") if name == "flux" else (name, name)
    backbone_field: BackboneField = {"path": name, "digest": front_end.digest(), "kind": kind}
    return InspectedModel(FRAME_CONTROL_CLASSES[frames](front_end), kind, 0, backbone_field)


@dataclass
class Corpus:
    """Tracks of an inspection: heads and layers are chosen on ``valid``, scores are those of ``test``.

    Attributes:
        label: Name in the rows.
        tracks: Tracks with audio, by split.
        expected: Number of tracks with or without audio, by split.
    """

    label: str
    tracks: dict[str, list[Track]]
    expected: dict[str, int]

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the test split."""
        return split_digest(self.tracks["test"])

    def groups(self, indices: Sequence[int]) -> list[str]:
        """Group of each of these test tracks; confidence intervals are drawn over groups."""
        tracks = [self.tracks["test"][index] for index in indices]
        return [track.group or track.track_id for track in tracks]


def corpus_of(dataset: Dataset, allow_missing: bool) -> Corpus:
    """Validation and test tracks of a corpus.

    Raises:
        InputError: a split is empty, or, without ``allow_missing``, audio is missing.
    """
    expected = {name: dataset.tracks(name) for name in SPLITS if name != "train"}
    with_audio = {name: [track for track in tracks if track.audio.is_file()] for name, tracks in expected.items()}
    for name, tracks in with_audio.items():
        missing = len(expected[name]) - len(tracks)
        if missing and not allow_missing:
            raise InputError(
                f"{dataset.label}: {missing} of {len(expected[name])} {name} tracks have no audio file; "
                "allow_missing=true goes on with the rest, and the rows count both"
            )
        if not tracks:
            raise InputError(
                f"{dataset.label}: no {name} track: heads and layers are chosen on valid and scored on test; "
                "name both splits in a manifest.jsonl (dataset=manifest); annotations are not needed"
            )
    return Corpus(dataset.label, with_audio, {name: len(tracks) for name, tracks in expected.items()})


def inspected_backbones(
    source: BackboneSource, like: str | None, model: ViT1DConfig, seeds: Sequence[int], controls: Sequence[str]
) -> list[InspectedModel]:
    """The requested backbone, followed by those with random weights.

    Args:
        source: What ``backbone=`` names: a backbone with attention maps.
        like: A backbone whose shape ``random`` has.
        model: Shape of ``random`` without ``like``.
        seeds: Of random weights.
        controls: Any of `musictf.results.names.INSPECTION_CONTROLS`.

    Raises:
        InputError: there is no such backbone, or it has no attention.
    """
    probed = probed_models(source, like, model, seeds, ["random"] if "random" in controls else [])
    models = []
    for entry in probed:
        seed = entry.seeds[0] if entry.kind == "random" else 0
        models.append(InspectedModel(encoder_with_attention(entry.encoder), entry.kind, seed, entry.backbone_field))
    return models


def replacement_audio_controls(model: InspectedModel, controls: Sequence[str], corpus: Corpus) -> list[InspectedModel]:
    """The backbone of a model on silence and on noise, where these controls are requested.

    Args:
        model: The requested backbone; the controls have its weights, and only what they read differs.
        controls: Any of `musictf.results.names.INSPECTION_CONTROLS`.
        corpus: Silence and noise last as long as its longest track.
    """
    models = []
    for name in ("silence", "noise"):
        if name in controls:
            track = control_track(name, corpus, model.backbone.grid.sample_rate)
            models.append(InspectedModel(model.backbone, name, 0, model.backbone_field | {"kind": name}, track))
    return models


def control_track(name: str, corpus: Corpus, sample_rate: int) -> Track:
    """Silence or noise as long as the longest track, at most two minutes, in the cache.

    Args:
        name: ``silence`` or ``noise``.
        corpus: Source of the length.
        sample_rate: In hertz.
    """
    longest = max(audio_info(track.audio).seconds for tracks in corpus.tracks.values() for track in tracks)
    num_samples = round(min(longest, _LONGEST_SECONDS) * sample_rate)
    path = control_folder() / f"{name}_{num_samples}_{sample_rate}.wav"
    if not path.is_file():
        level = {"silence": 0.0, "noise": _NOISE_LEVEL}[name]
        write_atomically(path, wav_bytes(level * np.random.default_rng(0).standard_normal(num_samples), sample_rate))
    return Track(track_id=name, audio=path, split="test")


def wav_bytes(waveform: npt.NDArray[np.floating], sample_rate: int) -> bytes:
    """WAV file, 32-bit floats, of a mono waveform (N,) at a sample rate in hertz."""
    file = io.BytesIO()
    soundfile.write(file, waveform.astype(np.float32), sample_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def repeated(values: npt.NDArray[np.floating], number: int) -> npt.NDArray[np.floating]:
    """The first ``number`` rows of values (N, ...), repeated from the start where there are fewer."""
    # Unchanged where the number fits: values may be mapped from disk, and an index would read all of them.
    return values if len(values) == number else values[np.arange(number) % len(values)]


def control_folder() -> Path:
    """Folder of the cache for silence, noise and stimuli."""
    return cache_folder() / "controls"
