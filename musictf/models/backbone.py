"""The backbone: spectrogram front end and encoder in one module, and the one file it lives in.

Shapes:  B batch   N audio samples   T sequence tokens   D embedding

The file is safetensors with a JSON text in its metadata: format, configuration, provenance, and a fingerprint (features
of a fixed input). Loading needs torch, torchaudio and safetensors only; a changed weight, configuration or format is
refused with a reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from musictf.audio.front_end import FrontEnd, FrontEndConfig
from musictf.audio.token_grid import TokenGrid
from musictf.errors import InputError
from musictf.models.encoder import Output
from musictf.models.vit1d import ViT1D, ViT1DConfig

FORMAT = "musictf-backbone/1"
FILE_NAME = "backbone.safetensors"
_FINGERPRINT_TOLERANCE = 1e-3  # differences between processors stay below 1e-5, a wrong weight shows well above


class Backbone(nn.Module):
    """Waveform (B, N) in, class token and sequence tokens of any layer out.

    Attributes:
        kind: ``pretrained``, or ``random`` for untrained weights.
        provenance: Where the weights come from; empty for untrained ones.
    """

    has_class_token = True

    def __init__(
        self,
        encoder: ViT1DConfig | None = None,
        front_end: FrontEndConfig | None = None,
        kind: str = "pretrained",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.provenance = provenance or {}
        self.front_end = FrontEnd(front_end or FrontEndConfig())
        self.encoder = ViT1D(encoder or ViT1DConfig(), self.front_end.config.layout)

    @property
    def grid(self) -> TokenGrid:
        """Sample rate of waveforms, and where tokens lie."""
        return self.front_end.config.grid

    @property
    def sample_rate(self) -> int:
        """Rate in hertz that waveforms must have."""
        return self.grid.sample_rate

    @property
    def token_rate(self) -> float:
        """Sequence tokens a second."""
        return self.grid.token_rate

    @property
    def normalise(self) -> str:
        """Level of a track before it is cut."""
        return self.front_end.config.normalise

    @property
    def num_samples(self) -> int:
        """Samples of the longest excerpt: the encoder has a position for each of its tokens."""
        return (self.encoder.config.max_frames - 1) * self.grid.hop_length

    @property
    def min_samples(self) -> int:
        """Samples of the longest analysis window."""
        return self.front_end.config.min_samples

    @property
    def depth(self) -> int:
        """Number of the last layer."""
        return self.encoder.config.depth

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return self.encoder.config.embed_dim

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return self.encoder.config.num_heads

    @property
    def num_parameters(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def name(self) -> str:
        """Preset of the encoder."""
        return self.encoder.config.preset

    @property
    def baseline_front_end(self) -> FrontEndConfig:
        """The same front end as this backbone has."""
        return self.front_end.config

    def forward(self, waveform: Tensor, layers: Iterable[int] | None = None, attention: bool = False) -> Output:
        """Embeddings of excerpts.

        Args:
            waveform: (B, N) float32 at ``sample_rate``, N up to ``num_samples``.
            layers: Layers to return, 0 to ``depth``; only the last by default.
            attention: Return the exact attention maps too.
        """
        mel = self.front_end(waveform)
        tokens = self.encoder(mel, layers, attention)
        times = self.grid.times(mel.shape[-1])
        return Output(tokens.class_token, tokens.sequence, times, tokens.attention)

    def digest(self) -> str:
        """Digest of weights and configuration (16 hexadecimal digits): the identity of what this computes."""
        # Sorted, and always in one byte order and place: the digest depends on values alone.
        state = hashlib.sha256(json.dumps(self._config(), sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    def shape_digest(self) -> str:
        """Digest of the configuration alone: what random weights of one shape share (16 hexadecimal digits)."""
        return hashlib.sha256(json.dumps(self._config(), sort_keys=True).encode()).hexdigest()[:16]

    def pretraining(self) -> dict[str, Any] | None:
        """Corpus, its digest and splits, and the steps of pretraining; None for untrained weights."""
        if self.kind != "pretrained":
            return None
        origin = self.provenance
        return {
            "corpus": origin.get("corpus"),
            "digest": origin.get("corpus_digest"),
            "steps": origin.get("steps"),
            "splits": origin.get("splits"),
        }

    def with_random_weights(self, seed: int = 0) -> Backbone:
        """A backbone of this shape with untrained weights: the same ones for a seed, whatever was drawn before."""
        return random_backbone(self.encoder.config, self.front_end.config, seed)

    def _config(self) -> dict[str, Any]:
        return {
            "front_end": self.front_end.config.to_json(),
            "encoder": dataclasses.asdict(self.encoder.config),
        }


def random_backbone(encoder: ViT1DConfig, front_end: FrontEndConfig | None = None, seed: int = 0) -> Backbone:
    """The control with random weights: those that pretraining with this seed would begin with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(encoder, front_end, kind="random", provenance={"seed": seed}).eval()


def save_backbone(backbone: Backbone, path: str | Path, provenance: dict[str, Any] | None = None) -> None:
    """Write a backbone file, atomically.

    Args:
        backbone: What to save; on any device.
        path: Target, ``backbone.safetensors`` by custom.
        provenance: What made it: corpus digest, steps, seed, commit, versions.
    """
    description = {
        "format": FORMAT,
        "config": backbone._config(),
        "provenance": provenance or {},
        "fingerprint": _fingerprint(backbone),
        "digest": backbone.digest(),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.encoder.state_dict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Not save_file, which keeps the file from everybody but its owner.
    temporary.write_bytes(save(weights, metadata={"musictf": json.dumps(description)}))
    os.replace(temporary, path)


def load_backbone(path: str | Path) -> Backbone:
    """Read a backbone file, or the one in a run folder, checked and ready: frozen, in eval mode, on the CPU.

    Raises:
        InputError: there is no such file, or its format, shapes, weights or fingerprint are not what it says.
    """
    path = backbone_file(path)
    description, weights = _read(path)
    if description.get("format") != FORMAT:
        raise InputError(f"{path}: format {description.get('format')!r}, this version reads {FORMAT!r}")
    try:
        config = description["config"]
        encoder, front_end = ViT1DConfig(**config["encoder"]), FrontEndConfig(**config["front_end"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: its configuration does not fit this version ({error})") from None
    backbone = Backbone(encoder, front_end, provenance=description.get("provenance"))
    try:
        backbone.encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: weights and configuration disagree: {reason[:300]}") from None
    # Frozen: a probe must never change what it reads.
    backbone.eval().requires_grad_(False)
    _verify(backbone, description, path)
    return backbone


def backbone_file(path: str | Path) -> Path:
    """The backbone file that a path names: itself, or ``backbone.safetensors`` in a run folder.

    Raises:
        InputError: there is no such file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(
            f"backbone={path} does not exist; give a backbone file, a run folder, or random, input, mel, mfcc, chroma"
        )
    return path


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("musictf")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not a backbone file ({error}); pretraining writes {FILE_NAME}") from None
    if text is None:
        raise InputError(f"{path}: safetensors, but without a musictf description; pretraining writes {FILE_NAME}")
    try:
        description = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its description is damaged ({error})") from None
    if not isinstance(description, dict):
        raise InputError(f"{path}: its description is damaged (not an object)")
    return description, weights


def _verify(backbone: Backbone, description: dict[str, Any], path: Path) -> None:
    if backbone.digest() != description.get("digest"):
        raise InputError(f"{path}: weights or configuration were changed after it was written (digest differs)")
    expected, found = np.asarray(description.get("fingerprint")), np.asarray(_fingerprint(backbone))
    if expected.shape != found.shape or not np.allclose(expected, found, rtol=0, atol=_FINGERPRINT_TOLERANCE):
        raise InputError(f"{path}: this version computes other features from these weights (fingerprint differs)")


@torch.no_grad()
def _fingerprint(backbone: Backbone) -> list[float]:
    """First features of the last class token and the mean sequence token for one second of a fixed chirp."""
    training, device = backbone.training, next(backbone.parameters()).device
    backbone.eval()
    time = torch.arange(backbone.sample_rate, dtype=torch.float64) / backbone.sample_rate
    chirp = (0.5 * torch.sin(2 * torch.pi * (110 + 1000 * time) * time)).float()[None].to(device)
    output = backbone(chirp[:, : backbone.num_samples])
    pooled = torch.cat([output.class_token[backbone.depth][0], output.sequence[backbone.depth][0].mean(dim=0)])
    backbone.train(training)
    return [round(value, 6) for value in pooled[:: max(1, len(pooled) // 32)].tolist()]
