"""``musictf probe``: rows with intervals for a backbone, a task and a corpus, with baselines and a ceiling.

All choices are made on the validation split: weights, settings, thresholds, and for each readout and seed the layer.
Then the test split is read once. Every layer is scored in that reading, and the chosen one is marked ``selected``.
An interrupted run continues with the next missing unit: the features of a track, the heads of a model, the scores of a
readout.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from rich.console import Console

from musictf.datasets.base import SPLITS, Dataset, Track
from musictf.distributed import TrainerConfig, rank
from musictf.errors import InputError, check_choices
from musictf.evaluation.baselines import classical, majority, oracle
from musictf.evaluation.leakage import POLICIES, Leakage, check_leakage, pretrained_identities
from musictf.evaluation.probed_models import ProbedModel, probed_models
from musictf.evaluation.progress import Progress
from musictf.evaluation.robustness import ROBUSTNESS, RobustnessConfig, curves
from musictf.evaluation.study import Study, decoded, with_intervals, write_vocabulary
from musictf.evaluation.task_tracks import Corpus, annotated, check_references, write_tracks
from musictf.features.extract import FeatureConfig, extract
from musictf.features.readouts import Split, scored_split, trained_split
from musictf.files import write_atomically
from musictf.models.backbone_source import backbone_source
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.heads import load_heads
from musictf.probing.linear_probe import ProbeConfig, fit
from musictf.results.names import PROBE_BASELINES, READOUTS
from musictf.results.rows import BackboneField, Results, Row, run_origin, validation_value
from musictf.results.statistics import resample_counts
from musictf.run_folder import WandbConfig, default_folder, open_run
from musictf.tasks.base import Task


@dataclass(kw_only=True)
class ProbeRun:
    """Configuration of ``musictf probe``.

    Attributes:
        backbone: Backbone file, run folder, or a control: random, input, mel, mfcc or chroma.
        task: What is predicted.
        dataset: Corpus with annotations for the task.
        model: Shape of random weights, where ``like`` is not given.
        trainer: Arguments of Lightning's Trainer.
        like: Backbone file or run folder that gives backbone=random its shape; null means that of model=.
        readouts: Vectors to probe, any of class, sequence, average.
        layers: all, or a list of layers; 0 is the projected input.
        seeds: Seeds of the heads, and of random weights.
        baselines: Baselines and upper bound to score beside the backbone.
        probe: How heads are trained.
        features: How features are extracted.
        robustness: Perturbations of the test audio.
        leakage: What to do where test tracks were seen in pretraining: fail, warn or off.
        wandb: Mirror in Weights & Biases.
        allow_missing: Score the tracks that can be used where others cannot; the rows say how many.
        overwrite: Replace the run that output_dir holds.
        output_dir: Run folder; null means runs/probe/TIME.
        choices: Name of the choice in each configuration group; set by the composition.
    """

    # Keys that may differ when an unfinished run is resumed: they change how it runs, not what it computes.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"trainer", "wandb", "overwrite", "output_dir", "choices"})

    backbone: str
    task: Task
    dataset: Dataset
    model: ViT1DConfig
    trainer: TrainerConfig
    like: str | None = None
    readouts: list[str] = field(default_factory=lambda: list(READOUTS))
    layers: Any = "all"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    baselines: list[str] = field(default_factory=lambda: list(PROBE_BASELINES))
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    leakage: str = "warn"
    wandb: WandbConfig = field(default_factory=WandbConfig)
    allow_missing: bool = False
    overwrite: bool = False
    output_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choices("readouts", self.readouts, READOUTS)
        check_choices("baselines", self.baselines, PROBE_BASELINES)
        if not self.readouts or not self.seeds or self.layers == []:
            raise InputError("readouts, seeds and layers: name at least one of each")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds}: give each once, none negative")
        if self.leakage not in POLICIES:
            raise InputError(f"leakage={self.leakage!r} is unknown: one of {', '.join(POLICIES)}")
        numbers = isinstance(self.layers, (list, tuple)) and all(isinstance(layer, int) for layer in self.layers)
        if self.layers != "all" and not numbers:
            raise InputError(f"layers={self.layers!r}: give 'all' or a list of numbers, layers=[0,4]")


def do_nothing(folder: Path) -> None:
    """Default of ``finish``: nothing is done after the rows are written."""


def probe(run: ProbeRun, finish: Callable[[Path], None] = do_nothing) -> Path:
    """Probe a backbone and its baselines on one task and corpus.

    Args:
        run: The configuration.
        finish: Called with the run folder when all rows are written; the run is finished only after it.

    Returns:
        The run folder, with ``results.jsonl``, ``per_track.csv``, ``estimates/`` and ``heads/``. Ranks other than the
        first help to extract features and do nothing else.

    Raises:
        InputError: an input cannot be used; nothing has been computed.
        FinishedRun: the folder holds a finished run.
    """
    source = backbone_source(run.backbone)
    models = probed_models(source, run.like, run.model, run.seeds, run.baselines)
    if not models[0].readouts(run.readouts):
        raise InputError(f"backbone={run.backbone} has no class token: readouts=[sequence,average]")
    for model in models:
        model.layers(run.layers)  # refuses a layer that does not exist before anything is computed
    corpus = annotated(run.dataset, run.task, run.allow_missing)
    settings = dataclasses.asdict(run.task)  # before the task learns from the training split
    run.task.prepare(corpus.references["train"])
    check_references(run.task, corpus)
    leakage = None
    if source.path is not None and run.leakage != "off" and rank() == 0:
        leakage = check_leakage(pretrained_identities(models[0].encoder, source.path), corpus.tracks, run.leakage)
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("probe")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "probe", run.MAY_CHANGE):
        if rank() > 0:
            for model in models:
                for tracks in corpus.tracks.values():
                    device = device_of(run.trainer)
                    extract(model.encoder, tracks, model.layers(run.layers), run.features, device)
            return folder
        write_vocabulary(folder, run.task)
        write_tracks(corpus.tracks["test"], corpus.groups, folder)
        if leakage is not None:
            leakage.write_csv(folder)
        _Probing(run, corpus, folder, settings, leakage).run_all(models)
        finish(folder)
    return folder


class _Probing:
    """The parts of one run, and the data that they share."""

    def __init__(
        self, run: ProbeRun, corpus: Corpus, folder: Path, settings: dict[str, Any], leakage: Leakage | None
    ) -> None:
        self.run, self.corpus, self.folder = run, corpus, folder
        self.seen = frozenset(overlap.track_id for overlap in leakage.hard("test")) if leakage else frozenset()
        self.results = Results(folder)
        self.console = Console(stderr=True, highlight=False)
        self.device = device_of(run.trainer)
        # Fields that all rows of the run share.
        self.origin: Row = run_origin(folder) | {
            "dataset": run.dataset.label,
            "features": dataclasses.asdict(run.features),
            "probe": dataclasses.asdict(run.probe),
            "task_settings": settings,
            # How much of the training and validation splits was usable; the field ``split`` says so of the test split.
            "training": {
                split: {"expected": corpus.expected[split], "used": len(corpus.tracks[split])}
                for split in ("train", "valid")
            },
            "leakage": None if leakage is None else leakage.to_json(),
        }

    def run_all(self, models: list[ProbedModel]) -> None:
        """Score every probed model, then the baselines without heads, then the perturbed tracks."""
        with Progress(f"probe {self.run.task.display_name}", 3 * len(models) + 3, self.console) as progress:
            for model in models:
                self.probe_model(model, progress)
            self.score_baselines(models[0], progress)
        tracks = self.corpus.tracks["test"]
        if rows := curves(tracks, self.run.robustness, lambda changed: self.score_perturbed(models, changed)):
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            write_atomically(self.folder / ROBUSTNESS, text)

    def probe_model(self, model: ProbedModel, progress: Progress) -> None:
        """Compute the missing features, heads and scores of one model."""
        study = self._study(model.backbone_field)
        readouts = model.readouts(self.run.readouts)
        cells = [(readout, seed) for seed in model.seeds for readout in readouts]
        # What an interrupted run has finished is not computed again.
        missing = [cell for cell in cells if not self.results.has(model.kind, *cell)]
        if not missing:
            progress.skip(3)
            return
        started = time.perf_counter()
        splits = self._splits(model, readouts, progress)
        seconds = {"features": time.perf_counter() - started}
        started = time.perf_counter()
        self._train(model, study, splits, progress)
        seconds["fit"] = time.perf_counter() - started
        advance = progress.stage(f"{model.kind}: scores", len(missing))
        for readout, seed in missing:
            best = study.score(readout, seed, splits, seconds)
            self._write(study)
            chosen = f"layer {best['layer']}, {self.run.task.headline} {validation_value(best):.3f} on valid"
            self.console.print(f"{self.run.task.display_name} · {model.kind} · {readout} · seed {seed}: {chosen}")
            advance()

    def score_baselines(self, requested: ProbedModel, progress: Progress) -> None:
        """The baselines without heads: the classical system, the majority answer and the ceiling."""
        task, encoder, num_tracks = self.run.task, requested.encoder, len(self.corpus.tracks["test"])
        for name, exists, steps, score in (
            ("classical", bool(task.classical), num_tracks, classical),
            ("majority", True, num_tracks, majority),
            ("oracle", task.level == "frame", len(task.decoders), partial(oracle, grid=encoder.grid)),
        ):
            readout = {"classical": "audio", "majority": "constant", "oracle": "targets"}[name]
            if name in self.run.baselines and exists and not self.results.has(name, readout, 0):
                digest = encoder.baseline_front_end.digest() if name == "oracle" else None
                study = self._study({"path": name, "digest": digest, "kind": name})
                score(study, progress.stage(name, steps))
                self._write(study)

    def score_perturbed(self, models: list[ProbedModel], tracks: list[Track]) -> list[Row]:
        """Scores of what validation has chosen, on perturbed test tracks; nothing is chosen again."""
        task, rows = self.run.task, []
        references = [track.annotation(task.annotation_name) for track in tracks]
        for model in models:
            layers = model.layers(self.run.layers)
            features = extract(model.encoder, tracks, layers, self.run.features, self.device)
            split = scored_split(task, features, references, model.readouts(self.run.readouts))
            study = self._study(model.backbone_field)
            for row in self._selected_rows(model):
                heads = {head.layer: head for head in load_heads(study.heads_path(row["readout"], row["seed"]))}
                estimates = decoded(task, heads[row["layer"]], row["readout"], split, row["decoder"])
                resampled = task.resample(references, estimates, resample_counts(self.corpus.groups))
                scores = with_intervals(task.score(references, estimates), resampled, self.corpus.groups)
                shared = {name: value for name, value in row.items() if name not in {"unseen", "seconds", "per_track"}}
                rows.append(cast(Row, shared | {"scores": scores, "details": {}}))
        return rows

    def _selected_rows(self, model: ProbedModel) -> list[Row]:
        """Selected rows of a model, of the decoder that selects."""
        key = (model.backbone_field["digest"], self.run.task.decoders[0])
        selected = [row for row in self.results.rows if row["selected"]]
        return [row for row in selected if (row["backbone"]["digest"], row["decoder"]["name"]) == key]

    def _study(self, backbone_field: BackboneField) -> Study:
        return Study(self.run.task, self.corpus, self.folder, self.origin, backbone_field, self.seen)

    def _write(self, study: Study) -> None:
        """Move the rows of a study to the results of the run."""
        self.results.add(study.rows, study.track_lines)
        study.rows, study.track_lines = [], []

    def _splits(self, model: ProbedModel, readouts: list[str], progress: Progress) -> dict[str, Split]:
        task, layers = self.run.task, model.layers(self.run.layers)
        num_tracks = sum(map(len, self.corpus.tracks.values()))
        advance = progress.stage(f"{model.kind}: features of {num_tracks} tracks", num_tracks)
        splits = {}
        for name in SPLITS:
            references = self.corpus.references[name]
            features = extract(model.encoder, self.corpus.tracks[name], layers, self.run.features, self.device, advance)
            if name == "test":
                splits[name] = scored_split(task, features, references, readouts)
            else:
                splits[name] = trained_split(task, features, references, readouts, self.run.features.memory_gib)
        return splits

    def _train(self, model: ProbedModel, study: Study, splits: dict[str, Split], progress: Progress) -> None:
        """Heads of all readouts and seeds, unless an interrupted run has left them."""
        run, readouts = self.run, model.readouts(self.run.readouts)
        advance = progress.stage(f"{model.kind}: heads", run.probe.steps)
        if all(load_heads(study.heads_path(readout, seed)) for readout in readouts for seed in model.seeds):
            return
        layers = model.layers(run.layers)
        heads = fit(
            run.task, splits["train"], splits["valid"], layers, run.probe, run.trainer, model.seeds, advance=advance
        )
        study.keep_heads(heads)


def device_of(trainer: TrainerConfig) -> str:
    """Name of the device for features: a GPU for each rank where the trainer may use GPUs, else the CPU."""
    if trainer.accelerator not in {"auto", "gpu", "cuda"} or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{rank() % torch.cuda.device_count()}"
