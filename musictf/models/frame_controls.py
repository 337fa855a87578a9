"""Controls: what a probe reads without any pretraining. Every score stands beside theirs.

``random`` has the weights that training begins with; ``mel``, ``mfcc`` and ``chroma`` have no encoder: their sequence
tokens are the frames of a classical feature on the token grid, their class token is the mean over time.

Shapes:  B batch   N audio samples   T frames   F features of a frame
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch
import torchaudio
from torch import Tensor

from musictf.audio.spectrogram import LogMelConfig
from musictf.errors import InputError
from musictf.models.backbone import Backbone, Output
from musictf.models.vit1d import ViT1DConfig

_NUM_MFCC = 20
_CHROMA_WINDOW = 4096  # samples; a longer window than the mel's, to tell low semitones apart


def random_backbone(encoder: ViT1DConfig, front_end: LogMelConfig | None = None, seed: int = 0) -> Backbone:
    """The control with random weights: the same ones for a seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(encoder, front_end, kind="random", provenance={"seed": seed}).eval()


class FrameControl(Backbone):
    """A backbone without an encoder; subclasses say what a frame is."""

    kind_name = ""
    num_features = 0

    def __init__(self, front_end: LogMelConfig | None = None) -> None:
        shape = ViT1DConfig(preset=self.kind_name, depth=1, embed_dim=1, num_heads=1)
        super().__init__(shape, front_end, kind=self.kind_name)
        self.encoder.requires_grad_(False)

    def frames(self, waveform: Tensor) -> Tensor:
        """Waveform (B, N) to frames (B, T, F)."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Only layer 0 exists."""
        return 0

    @property
    def embed_dim(self) -> int:
        """Features of a frame."""
        return self.num_features

    @property
    def num_parameters(self) -> int:
        """None are trained or used."""
        return 0

    def forward(self, waveform: Tensor, layers: Iterable[int] | None = None, attention: bool = False) -> Output:
        if layers is not None and set(layers) != {0} or attention:
            raise InputError(f"backbone={self.kind} has only layer 0, and no attention")
        frames = self.frames(waveform)
        times = self.front_end.config.frame_times(frames.shape[1])
        return Output({0: frames.mean(dim=1)}, {0: frames}, times)

    def digest(self) -> str:
        """Digest of the kind and the front end, which are all there is."""
        return hashlib.sha256(json.dumps([self.kind, self._config()["front_end"]]).encode()).hexdigest()[:16]


class MelBackbone(FrameControl):
    """The log-mel frames themselves."""

    kind_name = "mel"

    @property
    def embed_dim(self) -> int:
        """Mel bands."""
        return self.front_end.config.n_mels

    def frames(self, waveform: Tensor) -> Tensor:
        mel: Tensor = self.front_end(waveform)
        return mel.mT


class MFCCBackbone(FrameControl):
    """The first 20 coefficients of an orthonormal DCT-II of the log-mel, as `librosa.feature.mfcc`: timbre."""

    kind_name = "mfcc"
    num_features = _NUM_MFCC

    transform: Tensor

    def __init__(self, front_end: LogMelConfig | None = None) -> None:
        super().__init__(front_end)
        matrix = torchaudio.functional.create_dct(_NUM_MFCC, self.front_end.config.n_mels, "ortho")
        self.register_buffer("transform", matrix)

    def frames(self, waveform: Tensor) -> Tensor:
        return self.front_end(waveform).mT @ self.transform


class ChromaBackbone(FrameControl):
    """Energy of the twelve pitch classes, each frame divided by its largest, as `librosa.feature.chroma_stft`."""

    kind_name = "chroma"
    num_features = 12

    filters: Tensor
    window: Tensor

    def __init__(self, front_end: LogMelConfig | None = None) -> None:
        import librosa  # here alone: reading a backbone file must not need it

        super().__init__(front_end)
        bank = librosa.filters.chroma(sr=self.front_end.config.sample_rate, n_fft=_CHROMA_WINDOW, tuning=0.0)
        self.register_buffer("filters", torch.from_numpy(bank))
        self.register_buffer("window", torch.hann_window(_CHROMA_WINDOW))

    def frames(self, waveform: Tensor) -> Tensor:
        hop = self.front_end.config.hop_length
        spectrum = torch.stft(
            waveform.float(), _CHROMA_WINDOW, hop, window=self.window, pad_mode="constant", return_complex=True
        )
        energy = self.filters @ spectrum.abs().square()
        return (energy / energy.amax(dim=1, keepdim=True).clamp(min=torch.finfo(energy.dtype).tiny)).mT


FRAME_CONTROL_CLASSES: dict[str, type[FrameControl]] = {
    control.kind_name: control for control in (MelBackbone, MFCCBackbone, ChromaBackbone)
}
