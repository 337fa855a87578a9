"""The training step of `vit1d_tiny`, beside its matrix products alone, and beside the plain way to write it.

A step is forward, loss, backward, clipping and update, from log-mels in memory: the front end is left out everywhere.
Ours is the step of the LightningModule that a run trains, without Lightning's loop and the values logged every tenth
step. Its products are noted while it runs, with shapes, strides and precision (attention as its six products), and done
again on their own: those of the last block for the class token alone, as the network computes them, not those that a
whole block would take. The plain way is timm's VisionTransformer of the same shape with lightly's NT-Xent, torch's
AdamW as it comes, and autocast; it does all of its own work.

``step.py --profile [--bf16] [--device cuda]`` prints where the time of our step goes, by torch's profiler.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import torch
from frame import Measurement, Settings, alternated, faster
from lightly.loss import NTXentLoss
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.module import ContrastivePretraining, NTXent, StepConfig
from musictf.pretraining.optim import OptimConfig

TINY = ViT1DConfig(preset="vit1d_tiny")
QUICK = ViT1DConfig(preset="vit1d_quick", depth=2, embed_dim=64, num_heads=1)
PAIRS, QUICK_PAIRS, ROUNDS = 32, 4, 5
DROPPED = 0.5
BANDS = 128

TARGET_PRODUCTS = {"float32": 1 / 1.3, "bf16": 1 / 2.5}
TARGET_PLAIN = {"float32": 1 / 0.85, "bf16": 1 / 0.6}
TARGET_DROPPING = 1.7

Step = Callable[[], None]
Operand = tuple[torch.Size, tuple[int, ...], torch.dtype]
Product = tuple[Operand, Operand]


def measure(settings: Settings) -> list[Measurement]:
    """Time the steps and the products in turn, in both precisions."""
    config, pairs = (QUICK, QUICK_PAIRS) if settings.quick else (TINY, PAIRS)
    mel = torch.randn(2 * pairs, BANDS, config.max_frames, device=settings.device)
    runs: dict[str, Step] = {}
    products: dict[str, list[Product]] = {}
    for precision in TARGET_PRODUCTS:
        bf16 = precision == "bf16"
        runs[f"ours, {precision}"] = step = OurStep(config, mel, bf16)
        products[precision] = products_of(step)
        runs[f"products, {precision}"] = alone(products[precision], settings.device)
        runs[f"plain, {precision}"] = PlainStep(config, mel, bf16)
    runs["dropping"] = OurStep(config, mel, False, StepConfig(token_dropping=DROPPED))
    for run in runs.values():  # whoever comes first would pay for the start
        run()
    return rows(alternated(runs, 1 if settings.quick else ROUNDS, settings.synchronize), products, pairs)


class Mels(nn.Module):
    """Log-mels in memory, in the place of the front end."""

    def __init__(self, mel: Tensor) -> None:
        super().__init__()
        self.mel = mel

    def forward(self, waveform: Tensor) -> Tensor:
        return self.mel


def our_module(config: ViT1DConfig, mel: Tensor, step: StepConfig | None = None) -> ContrastivePretraining:
    """What a run trains, without its front end."""
    torch.manual_seed(0)
    backbone = Backbone(config)
    module = ContrastivePretraining(backbone, NTXent(), OptimConfig(), max_steps=1000, log_every=1000, step=step)
    backbone.front_end = Mels(mel)  # type: ignore[assignment]
    return module


def batch_of(pairs: int) -> dict[str, Tensor]:
    """A batch of pairs of different tracks whose audio nobody hears."""
    numbers = torch.arange(pairs)
    silence = torch.zeros(pairs, 1)
    return {"first": silence, "second": silence, "gain": torch.ones(pairs, 2), "track": numbers, "example": numbers}


class OurStep:
    """A step as a run makes it.

    Args:
        config: Shape of the network.
        mel: Log-mels of the first views, then of the second ones, (2n, F, T).
        bf16: Whether under autocast to bfloat16.
        step: How it is computed.
    """

    def __init__(self, config: ViT1DConfig, mel: Tensor, bf16: bool, step: StepConfig | None = None) -> None:
        self.device, self.bf16 = mel.device.type, bf16
        self.module = our_module(config, mel, step).to(mel.device)
        self.optimizer: Any = self.module.configure_optimizers()
        self.batch = {name: value.to(mel.device) for name, value in batch_of(len(mel) // 2).items()}

    def __call__(self) -> None:
        module = self.module
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            loss = module.training_step(self.batch, 0)
        loss.backward()
        module.on_before_optimizer_step(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), module.optim.gradient_clip)
        self.optimizer.found_inf = module.guard.skip_flag(norm, 0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Frames(nn.Module):
    """Frames of a log-mel (B, F, T) as timm's patches (B, T, D)."""

    def __init__(self, img_size: int, in_chans: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        self.num_patches = img_size
        self.proj = nn.Linear(in_chans, embed_dim)

    def forward(self, mel: Tensor) -> Tensor:
        return self.proj(mel.mT)


def plain_model(config: ViT1DConfig) -> VisionTransformer:
    """The transformer of timm of the same shape; answers class tokens (B, D)."""
    return VisionTransformer(
        img_size=config.max_frames,
        in_chans=BANDS,
        num_classes=0,
        global_pool="token",
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        embed_layer=Frames,
    )


class PlainStep:
    """A step as one writes it with what is there; see `OurStep`."""

    def __init__(self, config: ViT1DConfig, mel: Tensor, bf16: bool) -> None:
        self.mel, self.bf16, self.optim = mel, bf16, OptimConfig()
        self.model = plain_model(config).to(mel.device)
        self.criterion = NTXentLoss(temperature=NTXent().temperature)
        parameters, decay = self.model.parameters(), self.optim.weight_decay
        self.optimizer = torch.optim.AdamW(parameters, self.optim.learning_rate, weight_decay=decay)

    def __call__(self) -> None:
        with torch.autocast(self.mel.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.criterion(*self.model(self.mel).chunk(2))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


class _Notes(TorchDispatchMode):
    """Notes the operands of every matrix product that is done inside."""

    _PLACES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "addmm_": (1, 2), "baddbmm": (1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if places := self._PLACES.get(func.overloadpacket.__name__):
            first, second = (args[place] for place in places)
            self.products.append((_operand(first), _operand(second)))
        return func(*args, **(kwargs or {}))


def _operand(tensor: Tensor) -> Operand:
    return tensor.shape, tensor.stride(), tensor.dtype


def products_of(step: Step) -> list[Product]:
    """The matrix products of a step, in their order; attention in the open, so that its products can be seen."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # in the step's precision, on any device
    try:
        with sdpa_kernel(SDPBackend.MATH), _Notes() as notes:
            step()
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
    return notes.products


def alone(products: Iterable[Product], device: str) -> Step:
    """The same products of random matrices, and nothing between them."""
    made: dict[Operand, Tensor] = {}

    def matrix(operand: Operand) -> Tensor:
        if operand not in made:
            shape, strides, dtype = operand
            room = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            made[operand] = torch.randn(room, device=device).to(dtype).as_strided(shape, strides)
        return made[operand]

    operands = [(matrix(first), matrix(second)) for first, second in products]

    def run() -> None:
        for first, second in operands:
            torch.matmul(first, second)

    return run


def flop(products: Iterable[Product]) -> int:
    """Floating-point operations of products: an addition and a multiplication for each entry of their sums."""
    return sum(2 * first.numel() * second[-1] for (first, *_), (second, *_) in products)


def rows(seconds: dict[str, float], products: dict[str, list[Product]], pairs: int) -> list[Measurement]:
    """What the times say."""
    found = []
    for precision, target in TARGET_PRODUCTS.items():
        ours, noted = seconds[f"ours, {precision}"], products[precision]
        what = f"its {len(noted)} matrix products alone, {flop(noted) / 1e9:.1f} GFLOP, {pairs} pairs"
        found.append(faster(f"{precision}, of products", ours, seconds[f"products, {precision}"], what, target))
    for precision, target in TARGET_PLAIN.items():
        ours, plain = seconds[f"ours, {precision}"], seconds[f"plain, {precision}"]
        what = f"timm's VisionTransformer, lightly's NT-Xent, torch's AdamW, {pairs} pairs"
        found.append(faster(f"{precision}, of the plain way", ours, plain, what, target))
    whole, dropping = seconds["ours, float32"], seconds["dropping"]
    what = f"all frames, {pairs} pairs"
    return [*found, faster(f"float32, {DROPPED:.0%} of the frames dropped", dropping, whole, what, TARGET_DROPPING)]


def profile(device: str, bf16: bool) -> str:
    """Where the time of our step goes, as a table."""
    mel = torch.randn(2 * PAIRS, BANDS, TINY.max_frames, device=device)
    step = OurStep(TINY, mel, bf16)
    step()
    with torch.profiler.profile() as profiler:
        step()
    kind = "cpu" if device == "cpu" else "cuda"
    table: str = profiler.key_averages().table(sort_by=f"self_{kind}_time_total", row_limit=25)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print where the time of a training step goes.")
    parser.add_argument("--profile", action="store_true", required=True, help="measuring is done by run.py step")
    parser.add_argument("--bf16", action="store_true", help="under autocast to bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs")
    given = parser.parse_args()
    print(profile(given.device, given.bf16))
