"""Frame controls: features on the token grid, without any network.

``input`` (what the front end gives the encoder), ``mel``, ``mfcc`` and ``chroma`` are baselines: a probe reads their
frames as it reads sequence tokens. They have one layer, number 0, and no class token; where a readout needs one vector
for an excerpt, it is the mean over time.

Shapes:  B batch   N audio samples   T frames   F features of a frame
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable

import torch
import torchaudio
from torch import Tensor, nn

from musictf.audio.front_end import FrontEnd, FrontEndConfig
from musictf.audio.token_grid import TokenGrid
from musictf.errors import InputError
from musictf.models.encoder import Output
from musictf.models.vit1d import frame_norm

_EXCERPT_FRAMES = 126  # as the presets of ViT-1D: 4 s
_NUM_MFCC = 20
_CHROMA_WINDOW = 4096  # samples; a longer window than the mel's, to tell low semitones apart


class FrameControl(nn.Module):
    """An encoder without weights; subclasses say what a frame is.

    Args:
        front_end: Its grid, its mel bands and its level are used; the paper's by default.
    """

    kind = ""
    num_features = 0

    depth = 0
    num_heads = 0
    num_parameters = 0
    has_class_token = False

    def __init__(self, front_end: FrontEndConfig | None = None) -> None:
        super().__init__()
        self.front_end = FrontEnd(self.own_front_end(front_end or FrontEndConfig()))

    def own_front_end(self, config: FrontEndConfig) -> FrontEndConfig:
        """Of the front end given, what this control uses: its log-mel alone."""
        return dataclasses.replace(config, parts=["mel"])

    def frames(self, waveform: Tensor) -> Tensor:
        """Waveform (B, N) to frames (B, T, F)."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The kind: there is one of each."""
        return self.kind

    @property
    def grid(self) -> TokenGrid:
        """That of the front end."""
        return self.front_end.config.grid

    @property
    def sample_rate(self) -> int:
        """Rate in hertz that waveforms must have."""
        return self.grid.sample_rate

    @property
    def normalise(self) -> str:
        """Level of a track before it is cut."""
        return self.front_end.config.normalise

    @property
    def num_samples(self) -> int:
        """Samples of an excerpt."""
        return (_EXCERPT_FRAMES - 1) * self.grid.hop_length

    @property
    def min_samples(self) -> int:
        """Samples of the longest analysis window."""
        return self.front_end.config.min_samples

    @property
    def embed_dim(self) -> int:
        """Features of a frame."""
        return self.num_features

    @property
    def baseline_front_end(self) -> FrontEndConfig:
        """The front end given."""
        return self.front_end.config

    def forward(self, waveform: Tensor, layers: Iterable[int] | None = None, attention: bool = False) -> Output:
        if layers is not None and set(layers) != {0} or attention:
            raise InputError(f"backbone={self.kind} has only layer 0, and no attention")
        frames = self.frames(waveform)
        return Output({0: frames.mean(dim=1)}, {0: frames}, self.grid.times(frames.shape[1]))

    def digest(self) -> str:
        """Digest of the kind and the front end, which define the frames (16 hexadecimal digits)."""
        text = json.dumps([self.kind, self.front_end.config.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def shape_digest(self) -> None:
        """None: nothing here is random."""

    def pretraining(self) -> None:
        """None: nothing here was trained."""


class InputControl(FrameControl):
    """What an encoder with this front end reads: all parts, each normalised as an untrained encoder does it."""

    kind = "input"

    def __init__(self, front_end: FrontEndConfig | None = None) -> None:
        super().__init__(front_end)
        self.norm = frame_norm(self.front_end.config.layout).requires_grad_(False)

    def own_front_end(self, config: FrontEndConfig) -> FrontEndConfig:
        return config

    @property
    def embed_dim(self) -> int:
        """Features of all parts."""
        return self.front_end.config.num_features

    def frames(self, waveform: Tensor) -> Tensor:
        frames: Tensor = self.norm(self.front_end(waveform).mT)
        return frames


class MelControl(FrameControl):
    """The log-mel frames themselves."""

    kind = "mel"

    @property
    def embed_dim(self) -> int:
        """Mel bands."""
        return self.front_end.config.n_mels

    def frames(self, waveform: Tensor) -> Tensor:
        mel: Tensor = self.front_end(waveform)
        return mel.mT


class MFCCControl(FrameControl):
    """The first 20 coefficients of an orthonormal DCT-II of the log-mel, as `librosa.feature.mfcc`: timbre."""

    kind = "mfcc"
    num_features = _NUM_MFCC

    transform: Tensor

    def __init__(self, front_end: FrontEndConfig | None = None) -> None:
        super().__init__(front_end)
        matrix = torchaudio.functional.create_dct(_NUM_MFCC, self.front_end.config.n_mels, "ortho")
        self.register_buffer("transform", matrix)

    def frames(self, waveform: Tensor) -> Tensor:
        return self.front_end(waveform).mT @ self.transform


class ChromaControl(FrameControl):
    """Energy of the twelve pitch classes, each frame divided by its largest, as `librosa.feature.chroma_stft`."""

    kind = "chroma"
    num_features = 12

    filters: Tensor
    window: Tensor

    def __init__(self, front_end: FrontEndConfig | None = None) -> None:
        import librosa  # here alone: reading a backbone file must not need it

        super().__init__(front_end)
        bank = librosa.filters.chroma(sr=self.grid.sample_rate, n_fft=_CHROMA_WINDOW, tuning=0.0)
        self.register_buffer("filters", torch.from_numpy(bank))
        self.register_buffer("window", torch.hann_window(_CHROMA_WINDOW))

    def frames(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(
            waveform.float(),
            _CHROMA_WINDOW,
            self.grid.hop_length,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        energy = self.filters @ spectrum.abs().square()
        return (energy / energy.amax(dim=1, keepdim=True).clamp(min=torch.finfo(energy.dtype).tiny)).mT


FRAME_CONTROL_CLASSES: dict[str, type[FrameControl]] = {
    control.kind: control for control in (InputControl, MelControl, MFCCControl, ChromaControl)
}
