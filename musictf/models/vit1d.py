"""ViT-1D: a transformer whose patches are single spectrogram frames.

Shapes:  B batch   F mel bands   T frames = sequence tokens   K = 1 + T tokens   D embedding   H heads

Token 0 is the class token: a learned vector plus the mean over time of the projected frames. It has no time. Token k
above 0 is the sequence token of frame k - 1. Blocks are pre-norm. Positions are learned and absolute, and are added
after the class token is prepended.

References:
    Kong et al., "Emergent musical properties of a transformer under contrastive self-supervised learning",
    ISMIR 2025 (arXiv 2506.23873). The activation after the projection was not found there: GELU is our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musictf.audio.front_end import FrontEndConfig, Part
from musictf.errors import InputError


@dataclass(kw_only=True)
class ViT1DConfig:
    """Shape of a ViT-1D; the defaults are those of the paper.

    Attributes:
        preset: Name of the shape, for reports.
        depth: Number of transformer blocks.
        embed_dim: Length of an embedding; a multiple of ``num_heads``.
        num_heads: Attention heads of a block.
        mlp_ratio: Width of the hidden layer of a block, in multiples of ``embed_dim``.
        max_frames: Longest excerpt, in spectrogram frames.
    """

    preset: str = "custom"
    depth: int = 12
    embed_dim: int = 192
    num_heads: int = 3
    mlp_ratio: float = 4.0
    max_frames: int = 126

    def __post_init__(self) -> None:
        if min(self.depth, self.embed_dim, self.num_heads, self.max_frames) < 1:
            raise InputError("model: depth, embed_dim, num_heads and max_frames must be at least 1")
        if self.embed_dim % self.num_heads:
            raise InputError(f"model.embed_dim={self.embed_dim} is not a multiple of model.num_heads={self.num_heads}")


@dataclass
class Tokens:
    """Output of an encoder by layer: 0 is the projected input, the last layer is after the final norm.

    Attributes:
        class_token: (B, D) for each layer.
        sequence: (B, T, D) for each layer.
        attention: (B, H, K, K) for each layer from 1; rows are queries. Empty unless requested.
    """

    class_token: dict[int, Tensor]
    sequence: dict[int, Tensor]
    attention: dict[int, Tensor] = field(default_factory=dict)


class Attention(nn.Module):
    """Self-attention, (B, K, D) -> (B, K, D); with ``exact`` it also computes and returns the maps, (B, H, K, K)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, exact: bool = False) -> tuple[Tensor, Tensor | None]:
        query, key, value = map(self._heads, self.qkv(x).chunk(3, dim=-1))  # each (B, H, K, D / H)
        weights = None
        # On CPUs torch's fused attention takes four times as long in bfloat16, mostly in the backward pass.
        if exact or (query.device.type == "cpu" and query.dtype == torch.bfloat16):
            weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
            mixed = weights.to(value.dtype) @ value  # (B, H, K, D / H)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights if exact else None

    def first(self, x: Tensor) -> Tensor:
        """Attention of the first token alone, (B, K, D) -> (B, 1, D)."""
        dim = x.shape[-1]
        # The rows of the joint weight are those of query, key and value: only one query is needed.
        query = F.linear(x[:, :1], self.qkv.weight[:dim], self.qkv.bias[:dim])
        key, value = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(self._heads(query), self._heads(key), self._heads(value))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, K, D / H)


class Block(nn.Module):
    """Pre-norm transformer block, (B, K, D) -> (B, K, D); parameter names are timm's, so that tests can compare."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)  # timm's epsilon
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor, exact: bool = False) -> tuple[Tensor, Tensor | None]:
        mixed, weights = self.attn(self.norm1(x), exact)
        return self._feed_forward(x + mixed), weights

    def first(self, x: Tensor) -> Tensor:
        """The first token after this block, (B, K, D) -> (B, 1, D)."""
        return self._feed_forward(x[:, :1] + self.attn.first(self.norm1(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class ViT1D(nn.Module):
    """Log-mel (B, F, T) to class and sequence tokens of any layer."""

    def __init__(self, config: ViT1DConfig, parts: Sequence[Part] | None = None) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        parts = FrontEndConfig().layout if parts is None else parts
        self.frame_norm = frame_norm(parts)
        self.frame_proj = nn.Linear(sum(part.num_features for part in parts), dim)
        self.class_token = nn.Parameter(torch.empty(dim))
        self.pos_embed = nn.Parameter(torch.empty(1 + config.max_frames, dim))
        self.blocks = nn.ModuleList(Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def project(self, mel: Tensor) -> Tensor:
        """Log-mel (B, F, T) to layer-0 tokens (B, K, D), the class token first, positions not yet added."""
        frames = F.gelu(self.frame_proj(self.frame_norm(mel.mT)))  # (B, T, D)
        class_token = self.class_token + frames.mean(dim=1)  # (B, D)
        return torch.cat([class_token[:, None], frames], dim=1)

    def forward(self, mel: Tensor, layers: Iterable[int] | None = None, attention: bool = False) -> Tokens:
        """Tokens of the requested layers.

        Args:
            mel: Log-mel (B, F, T) with T up to ``max_frames``.
            layers: Layers to return, 0 to depth; None: only the last one.
            attention: Return the attention maps of every block up to the last requested layer.

        Raises:
            InputError: there is no such layer, or the excerpt is too long.
        """
        depth = self.config.depth
        requested = {depth} if layers is None else set(layers)
        if not requested <= set(range(depth + 1)):
            raise InputError(f"layers {sorted(requested)}: this encoder has 0 (projected input) to {depth}")
        if mel.shape[-1] > self.config.max_frames:
            raise InputError(f"{mel.shape[-1]} frames: this encoder has positions for {self.config.max_frames}")
        x = self.project(mel)  # (B, K, D)
        tokens = Tokens({}, {})
        _store(tokens, 0, x, requested)  # without positions: layer 0 is the input alone
        x = x + self.pos_embed[: x.shape[1]]
        for layer, block in enumerate(self.blocks[: max(requested)], start=1):
            x, weights = block(x, attention)
            if weights is not None:
                tokens.attention[layer] = weights
            _store(tokens, layer, self.norm(x) if layer == depth else x, requested)
        return tokens

    def class_token_of_last(self, mel: Tensor, frames: Tensor | None = None, checkpointing: bool = False) -> Tensor:
        """The class token after the last layer, (B, F, T) -> (B, D): the only input of the contrastive loss.

        Equal to the class token of ``forward``; the last block skips what only its sequence tokens would need.

        Args:
            mel: Log-mel (B, F, T) with T up to ``max_frames``.
            frames: Indices of the frames to read, (B, T') integers; the others are not encoded. None: all frames.
            checkpointing: Store only the input of each block and recompute the block in the backward pass.
        """
        if frames is None:
            x = self.project(mel)
            x = x + self.pos_embed[: x.shape[1]]
        else:
            x = self.project(mel.gather(2, frames[:, None].expand(-1, mel.shape[1], -1)))
            # Each kept frame has the position that it had among all frames.
            x = x + torch.cat([self.pos_embed[:1].expand(len(x), 1, -1), self.pos_embed[1:][frames]], dim=1)
        *earlier, last = self.blocks
        for block in earlier:
            x, _ = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
        assert isinstance(last, Block)  # for the type checker: iterating a ModuleList gives plain modules
        return self.norm(last.first(x))[:, 0]


class PartNorm(nn.Module):
    """Normalises the parts of frames (B, T, F), each by itself; parts whose level counts are left as they are."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.sizes = [part.num_features for part in parts]
        self.norms = nn.ModuleList(
            nn.LayerNorm(part.num_features) if part.is_normalised else nn.Identity() for part in parts
        )

    def forward(self, frames: Tensor) -> Tensor:
        parts = frames.split(self.sizes, dim=-1)
        return torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], dim=-1)


def frame_norm(parts: Sequence[Part]) -> nn.Module:
    """Normalisation of input frames; of a single part it is one layer, as in files of the paper's front end."""
    if len(parts) == 1:
        return nn.LayerNorm(parts[0].num_features) if parts[0].is_normalised else nn.Identity()
    return PartNorm(parts)


def _store(tokens: Tokens, layer: int, x: Tensor, requested: set[int]) -> None:
    if layer in requested:
        tokens.class_token[layer], tokens.sequence[layer] = x[:, 0], x[:, 1:]
