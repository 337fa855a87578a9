"""``musictf inspect``: what a backbone has learnt, measured without a probe: rows with controls, matrices, curves.

There are four parts. The rows of a part are written together when it is complete, so an interrupted run continues with
the part that was interrupted:

``attention``   onset curves of every head compared with onsets, beats, downbeats and chord changes
``similarity``  self-similarity of layers compared with musical dimensions, and their novelty with boundaries
``position``    what positions and any input explain without music
``maps``        where chord roots, keys and beat phases lie among the tokens

All definitions are our choice: the paper shows pictures, and its method is not public.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from musictf.audio.io import audio_info
from musictf.datasets.base import Dataset
from musictf.distributed import TrainerConfig, rank
from musictf.errors import InputError, check_choices
from musictf.evaluation.probe_run import device_of, do_nothing
from musictf.evaluation.progress import Progress
from musictf.evaluation.task_tracks import write_tracks
from musictf.features.extract import FeatureConfig
from musictf.inspection.attention import AttentionConfig, inspect_attention
from musictf.inspection.binned_tracks import SimilarityConfig
from musictf.inspection.context import InspectionContext
from musictf.inspection.inspected_models import (
    Corpus,
    InspectedModel,
    corpus_of,
    inspected_backbones,
    replacement_audio_controls,
)
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.position import inspect_position
from musictf.inspection.similarity_profile import inspect_similarity
from musictf.inspection.token_maps import TokenMapConfig, inspect_token_maps
from musictf.inspection.track_arrays import NUMBER, write_track_arrays
from musictf.models.backbone_source import backbone_source
from musictf.models.vit1d import ViT1DConfig
from musictf.results.names import INSPECTION_CONTROLS
from musictf.results.rows import RESULTS, read_rows
from musictf.run_folder import WandbConfig, default_folder, open_run

# Shorter tracks have too few pairs of distant bins for a correlation.
_SHORTEST_SECONDS = 2.0
_FEWEST_BINS = 8
PARTS = ("attention", "similarity", "position", "maps")
# A part is complete if there are rows whose task begins so: the rows of a part are written together.
_TASKS = {"attention": "attention_", "similarity": "ssm_profile", "position": "position", "maps": "token_map"}


@dataclass(kw_only=True)
class InspectRun:
    """Configuration of ``musictf inspect``.

    Heads, layers and thresholds are chosen on the validation split and scored on the test split; the training split is
    not read.

    Attributes:
        backbone: Backbone file, run folder, or random.
        dataset: Corpus to inspect the backbone on.
        model: Shape of random weights, where ``like`` is not given.
        trainer: Arguments of Lightning's Trainer.
        like: Backbone file or run folder that gives backbone=random its shape; null means that of model=.
        parts: Parts to compute, any of attention, similarity, position, maps.
        controls: Controls to compute beside the backbone, any of random, silence, noise.
        seeds: Seeds of the random weights.
        attention: What attention is compared with.
        similarity: How self-similarity matrices are made.
        token_maps: How token maps are made.
        features: How features are extracted.
        listen: Number of pages with sound, one for each of the first test tracks.
        estimates: Folders of probe runs whose estimates these pages show.
        wandb: Mirror in Weights & Biases.
        allow_missing: Inspect the tracks that can be used where others cannot.
        overwrite: Replace the run that output_dir holds.
        output_dir: Run folder; null means runs/inspect/TIME.
        choices: Name of the choice in each configuration group; set by the composition.
    """

    # Keys that may differ when an unfinished run continues: they change how it runs, not what it computes.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"trainer", "wandb", "overwrite", "output_dir", "choices", "listen", "estimates"}
    )

    backbone: str
    dataset: Dataset
    model: ViT1DConfig
    trainer: TrainerConfig
    like: str | None = None
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    controls: list[str] = field(default_factory=lambda: list(INSPECTION_CONTROLS))
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    token_maps: TokenMapConfig = field(default_factory=TokenMapConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    listen: int = 1
    estimates: list[str] = field(default_factory=list)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    allow_missing: bool = False
    overwrite: bool = False
    output_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choices("parts", self.parts, PARTS)
        check_choices("controls", self.controls, INSPECTION_CONTROLS)
        if not self.parts:
            raise InputError(f"parts: name at least one of {', '.join(PARTS)}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds}: give at least one, none twice, none negative")
        for name in self.estimates:
            if not (Path(name).expanduser() / RESULTS).is_file():
                raise InputError(f"estimates: {name} is not the folder of a probe run (no {RESULTS} in it)")
        if self.listen < 0:
            raise InputError(f"listen={self.listen} must not be negative")


def inspect(run: InspectRun, finish: Callable[[Path], None] = do_nothing) -> Path:
    """Inspect a backbone and its controls on the valid and test splits of a corpus.

    Args:
        run: The configuration.
        finish: Called with the run folder when all rows are written; the run counts as finished only after it.

    Returns:
        The run folder, with ``results.jsonl``, ``per_track.csv``, ``token_maps.npz``, and in ``tracks/`` curves and
        matrices with their times. Only the first rank computes.

    Raises:
        InputError: the backbone, the corpus or the configuration cannot be used; nothing has been computed.
        FinishedRun: the folder holds a finished run.
    """
    # A backbone that cannot be inspected is reported before a corpus is made.
    models = inspected_backbones(backbone_source(run.backbone), run.like, run.model, run.seeds, run.controls)
    corpus = corpus_of(run.dataset, run.allow_missing)
    models += replacement_audio_controls(models[0], run.controls, corpus)
    # Before anything is computed: a track that is too short would otherwise stop the run hours later.
    shortest = max(_SHORTEST_SECONDS, (_FEWEST_BINS + 1) * run.similarity.bin_seconds)
    for track in (track for tracks in corpus.tracks.values() for track in tracks):
        if (seconds := audio_info(track.audio).seconds) < shortest:
            raise InputError(
                f"{track.audio}: lasts {seconds:.2f} s, too short to compare with itself (at least {shortest:g} s); "
                "dataset.exclusions=FILE leaves it out"
            )
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("inspect")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "inspect", run.MAY_CHANGE):
        if rank() > 0:
            return folder
        write_tracks(corpus.tracks["test"], corpus.groups(range(len(corpus.tracks["test"]))), folder)
        _inspect_parts(run, corpus, models, folder)
        finish(folder)
    return folder


def _inspect_parts(run: InspectRun, corpus: Corpus, models: list[InspectedModel], folder: Path) -> None:
    """Run every part that has no rows yet, then write the arrays for figures."""
    done = {row["task"] for row in read_rows(folder / RESULTS)} if (folder / RESULTS).is_file() else set()
    parts = [part for part in run.parts if not any(task.startswith(_TASKS[part]) for task in done)]
    num_reading = sum(model.reads_music for model in models)
    # How many stages of the progress bar each part begins; the maps have two baselines besides the models.
    stages = {
        "attention": 2 * len(models),
        "similarity": len(models) + 1,
        "position": num_reading,
        "maps": num_reading + 2,
    }
    settings: dict[str, Any] = {"attention": run.attention, "similarity": run.similarity, "maps": run.token_maps}
    context = InspectionContext(
        corpus=corpus,
        features=run.features,
        rows=InspectionRows(folder, corpus, {}),
        device=device_of(run.trainer),
    )
    with Progress("inspect", sum(stages[part] for part in parts), Console(stderr=True, highlight=False)) as progress:
        for part in parts:
            rows = InspectionRows(folder, corpus, dataclasses.asdict(settings[part]) if part in settings else {})
            of_part = dataclasses.replace(context, rows=rows, stage=progress.stage)
            if part == "attention":
                inspect_attention(of_part, models, run.attention)
            elif part == "similarity":
                inspect_similarity(of_part, models, run.similarity)
            elif part == "position":
                inspect_position(of_part, models)
            else:
                inspect_token_maps(of_part, models, run.token_maps)
            rows.write()
        # Also in a run that continues: figures need them, and they are not rows.
        write_track_arrays(context, models[0], run.similarity, max(NUMBER, run.listen))
