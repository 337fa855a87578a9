"""``musictf inspect``: what emerges in a backbone without any probe, as rows with controls, matrices and curves.

Four parts, each written when it is whole, so that a run that was stopped goes on with the part it was in:

``attention``   onset curves of every head against onsets, beats, downbeats and chord changes
``similarity``  self-similarity of layers against musical dimensions, and their novelty against boundaries
``position``    what positions and plain input explain
``maps``        where roots, keys and beats lie among the tokens

How all of it is defined is ours; the paper shows pictures, and its recipe is not public.
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
from musictf.errors import InputError
from musictf.evaluation.corpus import write_tracks
from musictf.evaluation.progress import Progress
from musictf.evaluation.run import device_of, nothing_more
from musictf.features.extract import FeatureConfig
from musictf.inspection.attention import AttentionConfig, inspect_attention
from musictf.inspection.binned_tracks import SimilarityConfig
from musictf.inspection.inspected_models import CONTROLS, Corpus, InspectedModel, corpus_of, inspected_models
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.position import inspect_position
from musictf.inspection.similarity_profile import inspect_similarity
from musictf.inspection.token_maps import TokenMapConfig, inspect_token_maps
from musictf.inspection.track_arrays import NUMBER, write_track_arrays
from musictf.models.vit1d import ViT1DConfig
from musictf.results.rows import RESULTS, read_rows
from musictf.run_folder import WandbConfig, default_folder, open_run

_SHORTEST_SECONDS = 2.0
_FEWEST_BINS = 8
PARTS = ("attention", "similarity", "position", "maps")
# The task by whose rows a finished part is known.
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

    # Keys that may differ when an unfinished run goes on: how it runs, not what it computes.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"trainer", "wandb", "overwrite", "output_dir", "choices", "listen", "estimates"}
    )

    backbone: str
    dataset: Dataset
    model: ViT1DConfig
    trainer: TrainerConfig
    like: str | None = None
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
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
        for name, known in (("parts", PARTS), ("controls", CONTROLS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise InputError(f"{name}: {', '.join(sorted(unknown))} unknown: any of {', '.join(known)}")
        if not self.parts:
            raise InputError(f"parts: name at least one of {', '.join(PARTS)}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds}: give at least one, each once, none negative")
        for name in self.estimates:
            if not (Path(name).expanduser() / RESULTS).is_file():
                raise InputError(f"estimates: {name} is no folder of a probe run (it holds no {RESULTS})")
        if self.listen < 0:
            raise InputError(f"listen={self.listen} must not be negative")


def inspect(run: InspectRun, finish: Callable[[Path], None] = nothing_more) -> Path:
    """Inspect a backbone and its controls on the valid and test splits of a corpus.

    Args:
        run: The configuration.
        finish: Called with the run folder when all rows are there; the run is finished only after it.

    Returns:
        The run folder, with ``results.jsonl``, ``per_track.csv``, ``token_maps.npz``, and in ``tracks/`` curves and
        matrices with their times. Ranks other than the first have nothing to do.

    Raises:
        InputError: something cannot be used; nothing has been computed.
        FinishedRun: the folder holds a finished run.
    """
    corpus = corpus_of(run.dataset, run.allow_missing)
    subjects = inspected_models(run.backbone, run.like, run.model, run.seeds, run.controls, corpus)
    _refuse_short(corpus, run.similarity.bin_seconds)
    folder = Path(run.output_dir).expanduser() if run.output_dir else default_folder("inspect")
    with open_run(folder, dataclasses.asdict(run), run.overwrite, "inspect", run.MAY_CHANGE):
        if rank() > 0:
            return folder
        write_tracks(corpus.tracks["test"], corpus.groups(range(len(corpus.tracks["test"]))), folder)
        _Inspecting(run, corpus, subjects, folder).all()
        finish(folder)
    return folder


def _refuse_short(corpus: Corpus, bin_seconds: float) -> None:
    """Say before anything is computed that a track is too short to be compared with itself."""
    shortest = max(_SHORTEST_SECONDS, (_FEWEST_BINS + 1) * bin_seconds)
    for track in (track for tracks in corpus.tracks.values() for track in tracks):
        if (seconds := audio_info(track.audio).seconds) < shortest:
            raise InputError(
                f"{track.audio}: lasts {seconds:.2f} s, too short to compare with itself (at least {shortest:g} s); "
                "dataset.exclusions=FILE leaves it out"
            )


class _Inspecting:
    """The parts of one run, with what they share."""

    def __init__(self, run: InspectRun, corpus: Corpus, subjects: list[InspectedModel], folder: Path) -> None:
        self.run, self.corpus, self.subjects, self.folder = run, corpus, subjects, folder
        self.device = device_of(run.trainer)

    def all(self) -> None:
        """Every part that is not there yet, then what pictures are made of."""
        done = {row["task"] for row in read_rows(self.folder / RESULTS)} if (self.folder / RESULTS).is_file() else set()
        todo = [part for part in self.run.parts if not any(task.startswith(_TASKS[part]) for task in done)]
        with Progress("inspect", self._stages(todo), Console(stderr=True, highlight=False)) as progress:
            for part in todo:
                self._part(part, progress.stage)
            run, number = self.run, max(NUMBER, self.run.listen)
            write_track_arrays(
                self.subjects[0], self.corpus, self.folder, run.features, run.similarity, self.device, number
            )

    def _part(self, part: str, stage: Callable[[str, int], Callable[[], None]]) -> None:
        run = self.run
        ledger = InspectionRows(self.folder, self.corpus, self._settings(part))
        subjects, features, device = self.subjects, run.features, self.device
        if part == "attention":
            inspect_attention(subjects, self.corpus, run.attention, features, ledger, device, stage)
        elif part == "similarity":
            inspect_similarity(subjects, self.corpus, run.similarity, features, ledger, device, stage)
        elif part == "position":
            inspect_position(subjects, self.corpus, ledger, device, stage)
        else:
            inspect_token_maps(subjects, self.corpus, run.token_maps, features, ledger, device, stage)
        ledger.write()

    def _settings(self, part: str) -> dict[str, Any]:
        """What a part was told, as rows keep it."""
        own: dict[str, Any] = {
            "attention": self.run.attention,
            "similarity": self.run.similarity,
            "maps": self.run.token_maps,
        }
        return dataclasses.asdict(own[part]) if part in own else {}

    def _stages(self, todo: list[str]) -> int:
        """How many stages of the progress bar the parts begin."""
        heard = [subject for subject in self.subjects if subject.replacement_audio is None]
        counts = {
            "attention": 2 * len(self.subjects),
            "similarity": len(self.subjects) + 1,
            "position": len(heard),
            "maps": len(heard) + 2,
        }
        return sum(counts[part] for part in todo)
