"""The interface of encoders: everything that extraction, probing and inspection need of a model.

Shapes:  B batch   N audio samples   T sequence tokens   D embedding   H heads   K = 1 + T

A pretrained backbone, one with random weights, and the frame controls satisfy `Encoder`. A foreign model does so
through an adapter in a file of its own beside this one. `musictf.models.backbone_source` turns a ``backbone=`` text
into one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from musictf.audio.front_end import FrontEndConfig
from musictf.audio.token_grid import TokenGrid


@dataclass
class Output:
    """Embeddings of a batch of excerpts, by layer."""

    class_token: dict[int, Tensor]  # each (B, D); empty or the mean over time where ``has_class_token`` is false
    sequence: dict[int, Tensor]  # each (B, T, D)
    times: npt.NDArray[np.float64]  # centre of each sequence token in seconds from the excerpt's start, (T,)
    attention: dict[int, Tensor] = field(default_factory=dict)  # each (B, H, K, K), rows are queries


class Encoder(Protocol):
    """A frozen model that turns excerpts into tokens. Layers are numbered 0 to ``depth``."""

    @property
    def kind(self) -> str:
        """``pretrained``, ``foreign``, ``random``, or the name of a frame control."""

    @property
    def name(self) -> str:
        """What tables call it: the preset of a ViT-1D, or the name of a foreign model."""

    @property
    def grid(self) -> TokenGrid:
        """Sample rate of the waveform, and where the tokens of an excerpt lie."""

    @property
    def num_samples(self) -> int:
        """Length of the longest excerpt in samples."""

    @property
    def min_samples(self) -> int:
        """Length of the shortest excerpt in samples."""

    @property
    def normalise(self) -> str:
        """Level of the track before it is cut: ``none``, or ``peak`` (divided by the track's peak)."""

    @property
    def depth(self) -> int:
        """Number of the last layer."""

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""

    @property
    def num_heads(self) -> int:
        """Attention heads of a layer; 0 where no attention maps can be had."""

    @property
    def has_class_token(self) -> bool:
        """Whether ``class_token`` of an output holds anything that sequence tokens do not."""

    @property
    def num_parameters(self) -> int:
        """Parameters that were trained."""

    @property
    def baseline_front_end(self) -> FrontEndConfig:
        """Front end of the baselines that stand beside this encoder (its own input, log-mel, MFCC, chroma)."""

    def __call__(self, waveform: Tensor, layers: Iterable[int] | None = None, attention: bool = False) -> Output:
        """Embeddings of excerpts, waveform (B, N) float32; only the last layer by default."""

    def digest(self) -> str:
        """Digest of weights and configuration: the identity of what this computes (16 hexadecimal digits)."""

    def shape_digest(self) -> str | None:
        """Digest of the configuration alone, which random weights of one shape share; None where nothing is random."""

    def pretraining(self) -> dict[str, Any] | None:
        """Field ``pretrain`` of results rows: what the weights were trained on; None where nothing was trained."""

    def to(self, device: Any) -> Any:
        """The same encoder on another device."""

    def eval(self) -> Any:
        """The same encoder without dropout or running statistics."""
