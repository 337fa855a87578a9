"""``musictf probe``: a backbone, a task and a corpus in; rows with intervals, beside baselines and ceiling, out.

Everything is chosen on the validation split: weights, settings, thresholds, and for each readout and seed the layer.
Then the test split is read once; every layer is scored in that one reading and the chosen one is marked ``selected``.
A run that is stopped goes on with the unit it was in: a track's features, a system's heads, a readout's scores.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from musictf.datasets.base import SPLITS, Dataset, Track
from musictf.distributed import TrainerConfig, rank
from musictf.errors import InputError
from musictf.evaluation.baselines import classical, majority, oracle
from musictf.evaluation.corpus import Corpus, annotated, check_references, write_tracks
from musictf.evaluation.leakage import POLICIES, Leakage, check_leakage
from musictf.evaluation.probed_models import BASELINES, ProbedModel, probed_models
from musictf.evaluation.progress import Progress
from musictf.evaluation.robustness import ROBUSTNESS, RobustnessConfig, curves
from musictf.evaluation.study import Study, decoded, with_intervals, write_vocabulary
from musictf.features.extract import FeatureConfig, extract
from musictf.features.readouts import READOUTS, Split, scored_split, trained_split
from musictf.files import write_atomically
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.heads import load_heads
from musictf.probing.linear_probe import ProbeConfig, fit
from musictf.results.rows import SCHEMA, Results, Row
from musictf.results.statistics import resample_counts
from musictf.run_folder import WandbConfig, default_folder, open_run, provenance
from musictf.tasks.base import Task


@dataclass(kw_only=True)
class ProbeRun:
    """Configuration of ``musictf probe``.

    Attributes:
        backbone: Backbone file, run folder, or a control: random, mel, mfcc or chroma.
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

    # Keys that may differ when an unfinished run goes on: how it runs, not what it computes.
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
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
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
        for name, known in (("readouts", READOUTS), ("baselines", BASELINES)):
            if unknown := set(getattr(self, name)) - set(known):
                raise InputError(f"{name}: {', '.join(sorted(unknown))} unknown: any of {', '.join(known)}")
        if not self.readouts or not self.seeds or self.layers == []:
            raise InputError("readouts, seeds and layers: name at least one of each")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds}: give each once, none negative")
        if self.leakage not in POLICIES:
            raise InputError(f"leakage={self.leakage!r} is unknown: one of {', '.join(POLICIES)}")
        numbers = isinstance(self.layers, (list, tuple)) and all(isinstance(layer, int) for layer in self.layers)
        if self.layers != "all" and not numbers:
            raise InputError(f"layers={self.layers!r}: give 'all' or a list of numbers, layers=[0,4]")


def nothing_more(folder: Path) -> None:
    """Rows are all that is wanted."""


def probe(run: ProbeRun, finish: Callable[[Path], None] = nothing_more) -> Path:
    """Probe a backbone and its baselines on one task and corpus.

    Args:
        run: The configuration.
        finish: Called with the run folder when all rows are there; the run is finished only after it.

    Returns:
        The run folder, with ``results.jsonl``, ``per_track.csv``, ``estimates/`` and ``heads/``. Ranks other than the
        first help with features and leave the rest to it.

    Raises:
        InputError: something cannot be used; nothing has been computed.
        FinishedRun: the folder holds a finished run.
    """
    found = probed_models(run.backbone, run.like, run.model, run.seeds, run.baselines)
    if not any(system.readouts(run.readouts) for system in found[:1]):
        raise InputError(f"backbone={run.backbone} has no class token: readouts=[sequence,average]")
    for system in found:
        system.layers(run.layers)
    corpus = annotated(run.dataset, run.task, run.allow_missing)
    settings = dataclasses.asdict(run.task)  # before it learns from the training split
    run.task.prepare(corpus.references["train"])
    check_references(run.task, corpus)
    leakage = None
    if found[0].kind == "pretrained" and rank() == 0:
        leakage = check_leakage(Path(run.backbone), corpus.tracks, run.leakage)
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("probe")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "probe", run.MAY_CHANGE):
        if rank() > 0:
            _help_extracting(run, found, corpus)
            return folder
        write_vocabulary(folder, run.task)
        write_tracks(corpus.tracks["test"], corpus.groups, folder)
        if leakage is not None:
            leakage.write_csv(folder)
        _Probing(run, corpus, folder, settings, leakage).all(found)
        finish(folder)
    return folder


class _Probing:
    """The parts of one run, with what they share."""

    def __init__(
        self, run: ProbeRun, corpus: Corpus, folder: Path, settings: dict[str, Any], leakage: Leakage | None
    ) -> None:
        self.run, self.corpus, self.folder = run, corpus, folder
        self.seen = frozenset(overlap.track_id for overlap in leakage.hard("test")) if leakage else frozenset()
        self.results = Results(folder)
        self.console = Console(stderr=True, highlight=False)
        self.origin: Row = {
            "schema": SCHEMA,
            "run": folder.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **provenance(),
            "dataset": run.dataset.label,
            "features": dataclasses.asdict(run.features),
            "probe": dataclasses.asdict(run.probe),
            "task_settings": settings,
            # How much of the splits that are learnt from was usable: the test split says so for itself.
            "training": {
                split: {"expected": corpus.expected[split], "used": len(corpus.tracks[split])}
                for split in ("train", "valid")
            },
            "leakage": leakage and leakage.to_json(),
        }

    def all(self, found: list[ProbedModel]) -> None:
        """Every system in turn, then what needs no probe."""
        with Progress(f"probe {self.run.task.display_name}", 3 * len(found) + 3, self.console) as progress:
            for system in found:
                self.system(system, progress)
            self.unprobed(found[0], progress)
        tracks = self.corpus.tracks["test"]
        if rows := curves(tracks, self.run.robustness, lambda changed: self.perturbed(found, changed)):
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            write_atomically(self.folder / ROBUSTNESS, text)

    def system(self, system: ProbedModel, progress: Progress) -> None:
        """Features, heads and scores of one system, as far as they are not there yet."""
        study = self._study(system.about)
        readouts = system.readouts(self.run.readouts)
        cells = [(readout, seed) for seed in system.seeds for readout in readouts]
        todo = [cell for cell in cells if not self.results.has(system.kind, *cell)]
        if not todo:
            progress.skip(3)
            return
        started = time.perf_counter()
        splits = self._splits(system, readouts, progress)
        seconds = {"features": time.perf_counter() - started}
        started = time.perf_counter()
        self._train(system, study, splits, progress)
        seconds["fit"] = time.perf_counter() - started
        stage = progress.stage(f"{system.kind}: scores", len(todo))
        for readout, seed in todo:
            best = study.score(readout, seed, splits, seconds)
            self._keep(study)
            chosen = f"layer {best['layer']}, {self.run.task.headline} {best['selection']['value']:.3f} on valid"
            self.console.print(f"{self.run.task.display_name} · {system.kind} · {readout} · seed {seed}: {chosen}")
            stage()

    def unprobed(self, first: ProbedModel, progress: Progress) -> None:
        """Classical system, majority and ceiling."""
        baselines, task, number = self.run.baselines, self.run.task, len(self.corpus.tracks["test"])
        front_end = first.backbone.front_end.config
        for name, is_wanted, total, answer in (
            ("classical", bool(task.classical), number, classical),
            ("majority", True, number, majority),
            ("oracle", task.level == "frame", len(task.decoders), lambda *rest: oracle(rest[0], front_end, rest[1])),
        ):
            readout = {"classical": "audio", "majority": "constant", "oracle": "targets"}[name]
            if name in baselines and is_wanted and not self.results.has(name, readout, 0):
                digest = front_end.digest() if name == "oracle" else None
                study = self._study({"path": name, "digest": digest, "kind": name})
                answer(study, progress.stage(name, total))
                self._keep(study)

    def perturbed(self, found: list[ProbedModel], tracks: list[Track]) -> list[Row]:
        """Scores of what validation has chosen, on perturbed test tracks; nothing is chosen again."""
        task, rows = self.run.task, []
        references = [track.annotation(task.annotation_name) for track in tracks]
        for system in found:
            layers = system.layers(self.run.layers)
            features = extract(system.backbone, tracks, layers, self.run.features, device_of(self.run.trainer))
            split = scored_split(task, features, references, system.readouts(self.run.readouts))
            study = self._study(system.about)
            for row in self._chosen(system):
                heads = {head.layer: head for head in load_heads(study.heads_path(row["readout"], row["seed"]))}
                estimates = decoded(task, heads[row["layer"]], row["readout"], split, row["decoder"])
                resampled = task.resample(references, estimates, resample_counts(self.corpus.groups))
                scores = with_intervals(task.score(references, estimates), resampled, self.corpus.groups)
                kept = {name: value for name, value in row.items() if name not in {"unseen", "seconds", "per_track"}}
                rows.append(kept | {"scores": scores, "details": {}})
        return rows

    def _chosen(self, system: ProbedModel) -> list[Row]:
        """Selected rows of a system, of the decoder that chose."""
        return [
            row
            for row in self.results.rows
            if row["selected"]
            and (row["backbone"]["digest"], row["decoder"]["name"])
            == (system.about["digest"], self.run.task.decoders[0])
        ]

    def _study(self, about: Row) -> Study:
        return Study(self.run.task, self.corpus, self.folder, self.origin, about, self.seen)

    def _keep(self, study: Study) -> None:
        self.results.add(study.rows, study.track_lines)
        study.rows, study.track_lines = [], []

    def _splits(self, system: ProbedModel, readouts: list[str], progress: Progress) -> dict[str, Split]:
        layers = system.layers(self.run.layers)
        number = sum(map(len, self.corpus.tracks.values()))
        stage = progress.stage(f"{system.kind}: features of {number} tracks", number)
        splits = {}
        for name in SPLITS:
            tracks, references = self.corpus.tracks[name], self.corpus.references[name]
            device = device_of(self.run.trainer)
            features = extract(system.backbone, tracks, layers, self.run.features, device, stage)
            if name == "test":
                splits[name] = scored_split(self.run.task, features, references, readouts)
            else:
                limit = self.run.features.memory_gib
                splits[name] = trained_split(self.run.task, features, references, readouts, limit)
        return splits

    def _train(self, system: ProbedModel, study: Study, splits: dict[str, Split], progress: Progress) -> None:
        """Heads of all readouts and seeds, unless an earlier run has left them."""
        run, readouts = self.run, system.readouts(self.run.readouts)
        stage = progress.stage(f"{system.kind}: heads", run.probe.steps)
        if all(load_heads(study.heads_path(readout, seed)) for readout in readouts for seed in system.seeds):
            return
        layers = system.layers(run.layers)
        heads = fit(
            run.task, splits["train"], splits["valid"], layers, run.probe, run.trainer, system.seeds, advance=stage
        )
        study.keep_heads(heads)


def _help_extracting(run: ProbeRun, found: list[ProbedModel], corpus: Corpus) -> None:
    """What another rank than the first does."""
    for system in found:
        for tracks in corpus.tracks.values():
            extract(system.backbone, tracks, system.layers(run.layers), run.features, device_of(run.trainer))


def device_of(trainer: TrainerConfig) -> str:
    """Where features are computed: a GPU where the trainer may use one, each rank its own."""
    if trainer.accelerator not in {"auto", "gpu", "cuda"} or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{rank() % torch.cuda.device_count()}"
