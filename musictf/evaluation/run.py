"""``musictf probe``: a backbone, a task and a corpus in; rows with intervals, beside their floors, out.

Everything is chosen on the validation split: weights, learning rate, thresholds, and for each readout the layer. Then
the test split is read once; every layer is scored in that one reading and the chosen one is marked ``selected``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from musictf.audio.io import audio_info
from musictf.datasets.base import Dataset
from musictf.errors import InputError
from musictf.evaluation.corpus import annotated
from musictf.evaluation.rows import SCHEMA, Results, Row
from musictf.evaluation.study import Study, write_vocabulary
from musictf.models.backbone import Backbone, MelBackbone, backbone_file, load_backbone, random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.features import FeatureConfig, extract
from musictf.probing.module import ProbeConfig
from musictf.probing.readouts import READOUTS, split
from musictf.runs import TrainerConfig, WandbConfig, default_folder, open_run, provenance
from musictf.tasks.base import Task

FLOORS = ("random", "mel", "majority")


@dataclass(kw_only=True)
class ProbeRun:
    """Everything ``musictf probe`` can be told.

    ``backbone`` is a backbone file, a run folder, or a control: ``random`` (in the shape of ``model``, or of the
    backbone ``like``) or ``mel``. ``floors`` are probed beside it. ``layers`` is ``all`` or a list of numbers.
    """

    backbone: str
    task: Task
    dataset: Dataset
    model: ViT1DConfig
    trainer: TrainerConfig
    like: str | None = None
    readouts: list[str] = field(default_factory=lambda: list(READOUTS))
    layers: Any = "all"
    seeds: list[int] = field(default_factory=lambda: [0])
    floors: list[str] = field(default_factory=lambda: list(FLOORS))
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    allow_missing: bool = False
    overwrite: bool = False
    output_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("readouts", READOUTS), ("floors", FLOORS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise InputError(f"{name}: {', '.join(sorted(unknown))} unknown: any of {', '.join(known)}")
        if not self.readouts or not self.seeds or self.layers == []:
            raise InputError("readouts, seeds and layers: name at least one of each")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds}: give each once, none negative")
        if self.backbone == "mel" and set(self.readouts) == {"class"}:
            raise InputError("backbone=mel has no class token: readouts=[sequence,average]")


def nothing_more(folder: Path) -> None:
    """Rows are all that is wanted."""


def probe(run: ProbeRun, finish: Callable[[Path], None] = nothing_more) -> Path:
    """Probe a backbone and its floors on one task and corpus.

    Args:
        run: The configuration.
        finish: Called with the run folder when all rows are there; the run is finished only after it.

    Returns:
        The run folder, with ``results.jsonl``, ``per_track.csv``, ``estimates/`` and ``heads/``.

    Raises:
        InputError: something cannot be used; nothing has been computed.
        FinishedRun: the folder holds a finished run.
    """
    systems = _systems(run)
    layers = {backbone.kind: _layers(run, backbone) for backbone in systems}
    corpus = annotated(run.dataset, run.task, run.allow_missing)
    run.task.prepare(corpus.references["train"])
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("probe")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "probe"):
        write_vocabulary(folder, run.task)
        results = Results(folder)
        origin = {
            "schema": SCHEMA,
            "run": folder.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **provenance(),
            "dataset": run.dataset.label,
            "features": dataclasses.asdict(run.features),
            "probe": dataclasses.asdict(run.probe),
        }
        for backbone in systems:
            study = Study(run.task, corpus, folder, origin, _description(backbone, run.backbone))
            _probe_system(run, backbone, layers[backbone.kind], study, results)
        if "majority" in run.floors and not results.has("majority", "constant", 0):
            study = Study(run.task, corpus, folder, origin, {"path": "majority", "digest": None, "kind": "majority"})
            study.constant([audio_info(track.audio).seconds for track in corpus.tracks["test"]])
            results.add(study.rows, study.track_lines)
        finish(folder)
    return folder


def _probe_system(run: ProbeRun, backbone: Backbone, layers: list[int], study: Study, results: Results) -> None:
    # The spectrogram has no class token: its mean over time stands in ``average`` and, for clips, in ``sequence``.
    readouts = [name for name in run.readouts if not (backbone.kind == "mel" and name == "class")]
    todo = {name: [s for s in run.seeds if not results.has(backbone.kind, name, s)] for name in readouts}
    if not any(todo.values()):
        return
    console = Console(stderr=True)
    started = time.perf_counter()
    features = {
        name: list(extract(backbone, tracks, layers, run.features, _device(run.trainer)))
        for name, tracks in study.corpus.tracks.items()
    }
    seconds = {"features": time.perf_counter() - started}
    for readout, seeds in todo.items():
        splits = {
            name: split(run.task, tracks, study.corpus.references[name], readout)
            for name, tracks in features.items()
            if seeds
        }
        for seed in seeds:
            with console.status(f"probing {run.task.title}: {backbone.kind}, {readout}, seed {seed}"):
                best = study.probe(splits, readout, layers, seed, run.probe, run.trainer, seconds)
            results.add(study.rows, study.track_lines)
            study.rows, study.track_lines = [], []
            chosen = f"layer {best['layer']}, {run.task.headline} {best['selection']['value']:.3f} on valid"
            console.print(f"{run.task.title} · {backbone.kind} · {readout}: {chosen}", highlight=False)


def _systems(run: ProbeRun) -> list[Backbone]:
    """The backbone that was asked for, then the floors that need probing."""
    if run.backbone == "mel":
        systems: list[Backbone] = [MelBackbone()]
    elif run.backbone == "random":
        like = load_backbone(run.like) if run.like else None
        shape, front_end = (like.encoder.config, like.front_end.config) if like else (run.model, None)
        systems = [random_backbone(shape, front_end, run.seeds[0])]
    else:
        systems = [load_backbone(run.backbone)]
    first = systems[0]
    if "random" in run.floors and first.kind == "pretrained":
        systems.append(random_backbone(first.encoder.config, first.front_end.config, run.seeds[0]))
    if "mel" in run.floors and first.kind != "mel":
        systems.append(MelBackbone(first.front_end.config))
    return systems


def _layers(run: ProbeRun, backbone: Backbone) -> list[int]:
    if run.layers == "all" or backbone.kind == "mel":
        return list(range(backbone.depth + 1))
    if not isinstance(run.layers, (list, tuple)) or not all(isinstance(layer, int) for layer in run.layers):
        raise InputError(f"layers={run.layers!r}: give 'all' or a list of numbers, layers=[0,4]")
    unknown = [layer for layer in run.layers if not 0 <= layer <= backbone.depth]
    if unknown:
        raise InputError(f"layers={run.layers}: this backbone has layers 0 to {backbone.depth}")
    return sorted(set(run.layers))


def _description(backbone: Backbone, asked: str) -> Row:
    """The ``backbone`` field of rows."""
    pretrained = backbone.kind == "pretrained"
    origin = backbone.provenance
    return {
        "path": str(backbone_file(asked)) if pretrained else backbone.kind,
        "digest": backbone.digest(),
        "kind": backbone.kind,
        "preset": backbone.name,
        "parameters": backbone.num_parameters,
        "shape": backbone.shape_digest(),
        "pretrain": {
            "corpus": origin.get("corpus"),
            "digest": origin.get("corpus_digest"),
            "steps": origin.get("steps"),
            "splits": origin.get("splits"),
        }
        if pretrained
        else None,
    }


def _device(trainer: TrainerConfig) -> str:
    """Where features are computed: a GPU where the trainer may use one."""
    return "cuda" if trainer.accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available() else "cpu"
