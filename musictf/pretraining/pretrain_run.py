"""``musictf pretrain``: from a corpus and a configuration to a run folder with a backbone file."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from musictf.audio.augment import AugmentConfig
from musictf.audio.front_end import FrontEndConfig
from musictf.datasets.base import SPLITS, Dataset, Track, corpus_digest, require_audio
from musictf.datasets.identity import FILE_NAME as IDENTITIES
from musictf.datasets.identity import LEVELS, identities, write_identities
from musictf.distributed import TrainerConfig, rank
from musictf.errors import InputError
from musictf.models.backbone import FILE_NAME, Backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.packing.packed import packed_identities
from musictf.pretraining.callbacks import KeepCheckpoints, MetricsFile, Sink
from musictf.pretraining.checkpoints import VerifiedCheckpointIO, agreed_path, choose, require_fitting
from musictf.pretraining.guard import FILE_NAME as BAD_BATCHES
from musictf.pretraining.guard import GuardConfig, GuardWatch
from musictf.pretraining.interruption import StopCleanly, follow_launcher, in_one_line
from musictf.pretraining.module import ContrastivePretraining, NTXent, StepConfig
from musictf.pretraining.optim import OptimConfig
from musictf.pretraining.pairs import PairConfig, PairModule, Pairs
from musictf.pretraining.progress_bar import Bar
from musictf.pretraining.speed import Speedometer
from musictf.run_folder import WandbConfig, default_folder, open_run, provenance


@dataclass(kw_only=True)
class CheckpointConfig:
    """When the checkpoints of a run are written.

    Attributes:
        every: Optimisation steps between two versions of ``last.ckpt``, from which a run is resumed.
        keep_every: Steps between numbered checkpoints that are kept; 0 means none.
        requeue: Ask SLURM to queue the job again after SIGTERM as well as after SIGUSR1. For clusters where pre-emption
            sends SIGTERM; ``scancel`` sends it too.
    """

    every: int = 100
    keep_every: int = 0
    requeue: bool = False

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep_every < 0:
            raise InputError(
                f"checkpoint.every={self.every} must be at least 1, checkpoint.keep_every={self.keep_every} at least 0"
            )


@dataclass(kw_only=True)
class PretrainRun:
    """Configuration of ``musictf pretrain``.

    Attributes:
        dataset: Corpus to pretrain on.
        model: Shape of the encoder.
        objective: Contrastive loss and projection head.
        trainer: Arguments of Lightning's Trainer.
        front_end: Log-mel spectrogram, part of the backbone.
        optim: Optimiser and schedule.
        pairs: How the two excerpts of a pair are drawn.
        augment: Random changes of the excerpts.
        guard: What is done when a loss or gradient is not usable.
        checkpoint: When checkpoints are written.
        wandb: Mirror in Weights & Biases.
        max_steps: Optimisation steps of the whole run.
        batch_size: Pairs in one optimisation step, over all processes.
        micro_batch: Pairs of one process that are embedded at a time; null means all, and the gradient is the same.
        token_dropping: Share of the frames that is left out in training, drawn anew for every view.
        compile: Compile the encoder: a minute at the start, faster steps on GPUs.
        activation_checkpointing: Recompute activations in the backward pass, which saves memory.
        online_probe: How the run is probed while it trains; null means not at all. Read by the command.
        seed: Seed of weights, order, excerpts and augmentations.
        splits: Splits of the corpus to train on, any of train, valid, test.
        num_workers: Processes that read audio.
        log_every: Steps between two lines of metrics.csv.
        valid_every: Steps between two validations.
        identities: What is recorded of the corpus for the leakage report: full, files (no audio is decoded) or none.
        resume: Where to continue: auto (last checkpoint of output_dir, if any), never, or the path of a checkpoint.
        overwrite: Replace the run that output_dir holds.
        dry_run: Only print what the run would take, measured on twenty of its steps. Read by the command.
        output_dir: Run folder; null means runs/pretrain/TIME.
        choices: Name of the choice in each configuration group; set by the composition.
    """

    # Keys that may differ when an unfinished run is resumed: they change how it runs, not what it computes.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"max_steps", "trainer", "wandb", "resume", "overwrite", "output_dir", "num_workers", "choices"}
        | {"micro_batch", "compile", "activation_checkpointing", "checkpoint", "guard", "online_probe", "dry_run"}
    )

    dataset: Dataset
    model: ViT1DConfig
    objective: NTXent
    trainer: TrainerConfig
    front_end: FrontEndConfig = field(default_factory=FrontEndConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    max_steps: int = 1000
    batch_size: int = 128
    micro_batch: int | None = None
    token_dropping: float = 0.0
    compile: bool = False
    activation_checkpointing: bool = False
    online_probe: Any = None
    seed: int = 0
    splits: list[str] = field(default_factory=lambda: ["train"])
    num_workers: int = 1
    log_every: int = 10
    valid_every: int = 100
    identities: str = "full"
    resume: str = "auto"
    overwrite: bool = False
    dry_run: bool = False
    output_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log_every = min(self.log_every, self.max_steps)  # a short run logs its last step at least
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size}: a contrastive loss needs at least 2 pairs")
        for name in ("max_steps", "log_every", "valid_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        self._check_trainer()
        if self.batch_size % self.pairs.excerpts_per_track:
            raise InputError(
                f"batch_size={self.batch_size} is not a multiple of "
                f"pairs.excerpts_per_track={self.pairs.excerpts_per_track}"
            )
        self.step_config()  # refuses bad values of its own
        if self.seed < 0 or self.num_workers < 0:
            raise InputError(f"seed={self.seed} and num_workers={self.num_workers} must not be negative")
        if self.identities not in {*LEVELS, "none"}:
            raise InputError(f"identities={self.identities!r} is unknown: one of {', '.join(LEVELS)}, none")
        if unknown := set(self.splits) - set(SPLITS):
            raise InputError(f"splits: {', '.join(sorted(unknown))} unknown: any of {', '.join(SPLITS)}")

    def _check_trainer(self) -> None:
        """Refuse settings of Lightning's Trainer under which the contrastive loss would be wrong."""
        trainer = self.trainer
        if trainer.accumulate_grad_batches != 1:
            raise InputError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: accumulated gradients add no "
                "negatives; set batch_size to the pairs of a step and micro_batch to those that fit into memory"
            )
        if trainer.precision in {"16-mixed", "16-true", "16", "bf16-true"}:
            raise InputError(f"trainer.precision={trainer.precision} is too coarse here: use bf16-mixed or 32-true")
        if str(trainer.strategy).startswith("fsdp"):
            # Each rank holds a part of the weights; these use the weights outside the forward pass that joins them.
            unsupported = {"micro_batch": self.micro_batch, "online_probe": self.online_probe}
            names = [name for name, value in unsupported.items() if value is not None]
            names += ["trainer.precision"] * (trainer.precision != "32-true")
            if names:
                raise InputError(f"trainer.strategy={trainer.strategy} does not support {', '.join(names)}; use ddp")

    def step_config(self) -> StepConfig:
        """The settings of `StepConfig`, which are keys of the run itself."""
        return StepConfig(
            micro_batch=self.micro_batch,
            token_dropping=self.token_dropping,
            compile=self.compile,
            activation_checkpointing=self.activation_checkpointing,
        )


Observer = Callable[[Path], tuple[Sink, ...]]


def no_observer(folder: Path) -> tuple[Sink, ...]:
    """No receivers of logged values besides ``metrics.csv``."""
    return ()


def pretrain(run: PretrainRun, observe: Observer = no_observer, callbacks: Sequence[L.Callback] = ()) -> Path:
    """Pretrain a backbone.

    Args:
        run: The configuration.
        observe: Called with the run folder once it is locked; returns receivers of every logged value.
        callbacks: Further Lightning callbacks.

    Returns:
        The run folder, with ``backbone.safetensors``, ``identities.jsonl.gz``, ``metrics.csv`` and ``checkpoints/``.

    Raises:
        InputError: something in the configuration or the corpus cannot be used; nothing has been trained.
        FinishedRun: the folder holds a finished run.
        Interrupted: stopped on request; the same command resumes the run.
        Diverged: more steps were bad than ``guard.budget`` allows.
    """
    train_tracks, valid_tracks = training_tracks(run)
    L.seed_everything(run.seed, verbose=False)
    backbone = Backbone(run.model, run.front_end)
    data = pair_module(run, backbone, train_tracks, valid_tracks)
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("pretrain")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "pretrain", run.MAY_CHANGE):
        seen = write_seen_identities(run, train_tracks, folder)
        module = contrastive_module(run, backbone)
        trainer = _fit(run, module, data, folder, observe(folder), callbacks)
        weights = trainer.strategy.lightning_module_state_dict()  # on all ranks: each may hold a part
        if trainer.is_global_zero:
            origin = _provenance(run, train_tracks, trainer.global_step) | {"identities": seen}
            # Copied into a plain module: a strategy may have wrapped or sharded the trained one.
            trained = Backbone(run.model, run.front_end)
            trained.load_state_dict({name: weights[f"backbone.{name}"] for name in trained.state_dict()})
            save_backbone(trained, folder / FILE_NAME, origin)
        trainer.strategy.barrier()
    return folder


def contrastive_module(run: PretrainRun, backbone: Backbone) -> ContrastivePretraining:
    """The LightningModule of a run."""
    return ContrastivePretraining(
        backbone,
        run.objective,
        run.optim,
        run.max_steps,
        run.log_every,
        step=run.step_config(),
        augment=run.augment,
        guard=run.guard,
        seed=run.seed,
    )


def _fit(
    run: PretrainRun,
    module: ContrastivePretraining,
    data: PairModule,
    folder: Path,
    sinks: tuple[Sink, ...],
    others: Sequence[L.Callback],
) -> L.Trainer:
    """Train to the last step, from the newest checkpoint if there is one."""
    checkpoints = folder / "checkpoints"
    metrics = MetricsFile(folder / "metrics.csv", sinks)
    monitor = "train/loss" if data.valid is None else "valid/loss"
    guard = GuardWatch(folder / BAD_BATCHES, data.tracks_of_step, run.log_every)
    # The training loss is known at logged steps only: round up to the next one.
    logged = -(-run.checkpoint.every // run.log_every) * run.log_every
    score_every = logged if data.valid is None else run.valid_every
    keeper = KeepCheckpoints(checkpoints, run.checkpoint.every, run.checkpoint.keep_every, monitor, score_every)
    keeper.before_writing = guard.check
    stop = StopCleanly(keeper, run.log_every, run.checkpoint.requeue)
    # The keeper is first: it writes the checkpoint of a step before the others begin the next one.
    callbacks: list[L.Callback] = [keeper, guard, Speedometer(run.max_steps, run.batch_size, run.log_every), *others]
    callbacks.append(stop)
    if run.trainer.enable_progress_bar:
        callbacks.append(Bar(run.log_every))
    try:
        trainer = make_trainer(run, data, folder, metrics, callbacks)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]} (trainer=cpu needs no GPU)") from error
    follow_launcher()
    with in_one_line(trainer):
        checkpoint = agreed_path(trainer, lambda: choose(run.resume, checkpoints))
    done = 0 if checkpoint is None else require_fitting(checkpoint, module.state_dict(), run.resume)
    if done > run.max_steps:
        raise InputError(f"resume={run.resume}: {checkpoint} is at step {done}, beyond max_steps={run.max_steps}")
    metrics.forget_after(done)  # the steps after the checkpoint are made again
    with warnings.catch_warnings(), stop.listening(), in_one_line(trainer):
        # Lightning advises more loader workers than a small machine has cores, and warns of an endless loader.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*val_check_interval.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 with torch 2.14
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


def make_trainer(
    run: PretrainRun, data: PairModule, folder: Path, metrics: MetricsFile, callbacks: list[L.Callback]
) -> L.Trainer:
    """Lightning's Trainer for a run; it calls ``callbacks`` in their order."""
    settings = dataclasses.asdict(run.trainer)
    timeout = timedelta(seconds=settings.pop("timeout_s"))
    if run.trainer.strategy == "ddp":
        # Buffers are constants, counts that agree, and statistics that GPUs synchronise: nothing to send every step.
        settings["strategy"] = DDPStrategy(timeout=timeout, broadcast_buffers=False)
    if run.trainer.strategy == "fsdp":
        settings["strategy"] = FSDPStrategy(timeout=timeout)
    trainer = L.Trainer(
        **settings,
        # BatchNorm of an MLP head over all ranks, as the loss is; on CPUs torch has none, and the module refuses.
        sync_batchnorm=run.objective.projection == "mlp" and torch.cuda.is_available(),
        max_steps=run.max_steps,
        max_epochs=-1,
        log_every_n_steps=run.log_every,
        val_check_interval=run.valid_every,
        check_val_every_n_epoch=None,
        limit_val_batches=0 if data.valid is None else 1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # ours are written later in the step: KeepCheckpoints
        plugins=[VerifiedCheckpointIO()],
        default_root_dir=folder,
        logger=metrics,
        callbacks=callbacks,
    )
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False  # Lightning would save inside the signal handler, beside our checkpoints
    return trainer


def training_tracks(run: PretrainRun) -> tuple[list[Track], list[Track]]:
    """Tracks to train on, and tracks to validate on.

    Raises:
        InputError: the corpus has too few tracks, or their audio is missing.
    """
    tracks = run.dataset.all_tracks()
    train = [track for track in tracks if track.split in run.splits]
    valid = [track for track in tracks if track.split == "valid" and "valid" not in run.splits]
    if not train:
        raise InputError(f"{run.dataset.label}: no track in {'+'.join(run.splits)}; choose with splits=[...]")
    if len(valid) < 2:
        valid = []  # a single track has no negatives
    if len(train) < 2:
        raise InputError(
            f"{run.dataset.label}: one track in {'+'.join(run.splits)}; a contrastive loss needs at least two"
        )
    require_audio([*train, *valid], run.dataset.label)
    return train, valid


def write_seen_identities(run: PretrainRun, tracks: list[Track], folder: Path) -> dict[str, str] | None:
    """Write the identities of the training tracks beside the backbone, for later checks of leakage.

    Args:
        run: The configuration.
        tracks: Training tracks.
        folder: Run folder.

    Returns:
        Name, digest and level of the file for the provenance; None on ranks above 0 and with ``identities=none``.
    """
    if run.identities == "none" or rank() > 0:
        return None
    seen = packed_identities(tracks) or identities(tracks, run.identities)
    digest = write_identities(folder / IDENTITIES, seen)
    return {"file": IDENTITIES, "digest": digest, "level": run.identities}


def pair_module(run: PretrainRun, backbone: Backbone, train: list[Track], valid: list[Track]) -> PairModule:
    """The batches of a run; excerpts are as long as the backbone has positions for."""

    def make(tracks: list[Track], pairs: PairConfig, seed: int) -> Pairs:
        return Pairs(tracks, pairs, run.front_end, backbone.num_samples, seed, run.batch_size)

    # Validation draws with another seed, and without the settings that make training harder: then runs compare.
    plain = dataclasses.replace(run.pairs, excerpts_per_track=1, batch_by=None, weights=[])
    return PairModule(
        make(train, run.pairs, run.seed),
        make(valid, plain, run.seed + 1) if valid else None,
        run.batch_size,
        run.num_workers,
        run.micro_batch is not None,
    )


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
        "augment": dataclasses.asdict(run.augment),
        "token_dropping": run.token_dropping,
        "resume": run.resume,
        **provenance(),
    }
