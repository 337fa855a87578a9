"""``musictf pretrain``: a corpus and a configuration in, a run folder with a backbone file out."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import TQDMProgressBar

from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import SPLITS, Dataset, Track, corpus_digest, require_audio
from musictf.datasets.identity import FILE_NAME as IDENTITIES
from musictf.datasets.identity import LEVELS, identities, write_identities
from musictf.errors import InputError
from musictf.models.backbone import FILE_NAME, Backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.callbacks import MetricsFile, Sink, StopCleanly, checkpoints
from musictf.pretraining.excerpts import PairConfig, PairModule, Pairs
from musictf.pretraining.module import ContrastivePretraining, NTXent
from musictf.pretraining.optim import OptimConfig
from musictf.runs import TrainerConfig, WandbConfig, default_folder, open_run, provenance, rank

_LAST = "last.ckpt"


@dataclass(kw_only=True)
class CheckpointConfig:
    """How often, in optimisation steps, the resumable checkpoint is written."""

    every: int = 100


@dataclass(kw_only=True)
class PretrainRun:
    """Everything ``musictf pretrain`` can be told.

    ``batch_size`` counts the pairs of one optimisation step over all ranks, ``max_steps`` such steps, ``valid_every``
    and ``log_every`` steps. ``resume`` is ``auto`` (the run's own last checkpoint, if any), ``never`` or a checkpoint.
    ``identities`` is what the run keeps of its corpus for later checks of leakage: ``full``, ``files`` (nothing is
    decoded: for corpora too large to decode once more) or ``none``.
    """

    dataset: Dataset
    model: ViT1DConfig
    objective: NTXent
    trainer: TrainerConfig
    front_end: LogMelConfig = field(default_factory=LogMelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    max_steps: int = 1000
    batch_size: int = 128
    seed: int = 0
    splits: list[str] = field(default_factory=lambda: ["train"])
    num_workers: int = 1
    log_every: int = 10
    valid_every: int = 100
    identities: str = "full"
    resume: str = "auto"
    overwrite: bool = False
    output_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log_every = min(self.log_every, self.max_steps)  # a short run has something to show as well
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size}: a contrast needs at least 2 pairs")
        for name in ("max_steps", "log_every", "valid_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.seed < 0 or self.num_workers < 0:
            raise InputError(f"seed={self.seed} and num_workers={self.num_workers} must not be negative")
        if self.identities not in {*LEVELS, "none"}:
            raise InputError(f"identities={self.identities!r} is unknown: one of {', '.join(LEVELS)}, none")
        if unknown := set(self.splits) - set(SPLITS):
            raise InputError(f"splits: {', '.join(sorted(unknown))} unknown: any of {', '.join(SPLITS)}")


Observer = Callable[[Path], tuple[Sink, ...]]


def no_observer(folder: Path) -> tuple[Sink, ...]:
    """Nobody but ``metrics.csv`` hears of the run."""
    return ()


def pretrain(run: PretrainRun, observe: Observer = no_observer) -> Path:
    """Pretrain a backbone.

    Args:
        run: The configuration.
        observe: Called with the run folder once it is claimed; answers with receivers of every logged value.

    Returns:
        The run folder, with ``backbone.safetensors``, ``identities.jsonl.gz``, ``metrics.csv`` and ``checkpoints/``.

    Raises:
        InputError: something in the configuration or the corpus cannot be used; nothing has been trained.
        FinishedRun: the folder holds a finished run.
        Interrupted: stopped on request; the same command goes on.
    """
    train_tracks, valid_tracks = _tracks(run)
    L.seed_everything(run.seed, verbose=False)
    backbone = Backbone(run.model, run.front_end)
    data = _pairs(run, backbone, train_tracks, valid_tracks)
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("pretrain")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "pretrain"):
        seen = _write_identities(run, train_tracks, folder)
        module = ContrastivePretraining(
            backbone, run.objective, run.optim, run.max_steps, run.batch_size, run.log_every
        )
        trainer = _fit(run, module, data, folder, observe(folder))
        if trainer.is_global_zero:
            origin = _provenance(run, train_tracks, trainer.global_step) | {"identities": seen}
            save_backbone(backbone, folder / FILE_NAME, origin)
        trainer.strategy.barrier()
    return folder


def _fit(
    run: PretrainRun, module: ContrastivePretraining, data: PairModule, folder: Path, sinks: tuple[Sink, ...]
) -> L.Trainer:
    last = folder / "checkpoints" / _LAST
    checkpoint = _checkpoint(run.resume, last)
    metrics = MetricsFile(folder / "metrics.csv", sinks)
    if checkpoint is not None:
        metrics.forget_after(_global_step(checkpoint))
    monitor = "train/loss" if data.valid is None else "valid/loss"
    callbacks = [*checkpoints(last.parent, run.checkpoint.every, monitor), StopCleanly(last, run.log_every)]
    if run.trainer.enable_progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=run.log_every))
    try:
        trainer = _trainer(run, data, folder, metrics, callbacks)
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]}") from error
    with warnings.catch_warnings():
        # Lightning advises more loader workers than a small machine has cores, and dislikes an unending loader.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*val_check_interval.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 beside torch 2.14
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(last)  # by all ranks or none: which of them sees the file is a race
    return trainer


def _trainer(
    run: PretrainRun, data: PairModule, folder: Path, metrics: MetricsFile, callbacks: list[L.Callback]
) -> L.Trainer:
    return L.Trainer(
        **dataclasses.asdict(run.trainer),
        # BatchNorm of an MLP head over all ranks, as the loss is; on CPUs torch has none, and the module refuses.
        sync_batchnorm=run.objective.projection == "mlp" and torch.cuda.is_available(),
        max_steps=run.max_steps,
        max_epochs=-1,
        gradient_clip_val=run.optim.gradient_clip,
        log_every_n_steps=run.log_every,
        val_check_interval=run.valid_every,
        check_val_every_n_epoch=None,
        limit_val_batches=0 if data.valid is None else 1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=folder,
        logger=metrics,
        callbacks=callbacks,
    )


def _tracks(run: PretrainRun) -> tuple[list[Track], list[Track]]:
    tracks = run.dataset.all_tracks()
    train = [track for track in tracks if track.split in run.splits]
    valid = [track for track in tracks if track.split == "valid" and "valid" not in run.splits]
    if not train:
        raise InputError(f"{run.dataset.label}: no track in {'+'.join(run.splits)}; choose with splits=[...]")
    if len(valid) < 2:
        valid = []  # one track has nothing to be told from
    if len(train) < 2:
        raise InputError(f"{run.dataset.label}: one track in {'+'.join(run.splits)}; a contrast needs at least two")
    require_audio([*train, *valid], run.dataset.label)
    return train, valid


def _write_identities(run: PretrainRun, tracks: list[Track], folder: Path) -> dict[str, str] | None:
    """Leave beside the backbone what it is about to be trained on; returns the note of it for the provenance."""
    if run.identities == "none" or rank() > 0:
        return None
    digest = write_identities(folder / IDENTITIES, identities(tracks, run.identities))
    return {"file": IDENTITIES, "digest": digest, "level": run.identities}


def _pairs(run: PretrainRun, backbone: Backbone, train: list[Track], valid: list[Track]) -> PairModule:
    def make(tracks: list[Track], seed: int) -> Pairs:
        return Pairs(tracks, run.pairs, run.front_end, backbone.num_samples, seed)

    # Other draws than training's, and the same ones at every validation.
    return PairModule(
        make(train, run.seed), make(valid, run.seed + 1) if valid else None, run.batch_size, run.num_workers
    )


def _checkpoint(resume: str, last: Path) -> Path | None:
    if resume == "never":
        return None
    if resume == "auto":
        return last if last.is_file() else None
    path = Path(resume).expanduser()
    path = path / "checkpoints" / _LAST if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"resume={resume}: no checkpoint there; give a run folder, a .ckpt file, auto or never")
    return path


def _global_step(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _provenance(run: PretrainRun, tracks: list[Track], steps: int) -> dict[str, Any]:
    return {
        "corpus": run.dataset.label,
        "corpus_digest": corpus_digest(tracks),
        "num_tracks": len(tracks),
        "splits": list(run.splits),
        "steps": steps,
        "batch_size": run.batch_size,
        "seed": run.seed,
        "objective": dataclasses.asdict(run.objective),
        "optim": dataclasses.asdict(run.optim),
        "pairs": dataclasses.asdict(run.pairs),
        **provenance(),
    }
