"""Which layer knows what: the self-similarity of layers held against that of musical dimensions.

Shapes:  N tokens   S bins   L layers   D features

A layer's value in a dimension is the rank correlation of their matrices, or their alignment (CKA). Smooth series
correlate by themselves, so both stand beside two nulls: the dimension shifted round the track by a random time, which
keeps its smoothness, and its bins shuffled. Random weights, silence and noise are read in the same way, and so is the
log-mel. Layer 0 is the projected input; the last layer is after the final norm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.features.extract import FeatureConfig
from musictf.inspection.binned_tracks import Layers, SimilarityConfig, TrackView, layers_of, views
from musictf.inspection.boundaries import Edges
from musictf.inspection.event_scores import mean_over_tracks
from musictf.inspection.events import draws_of
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import Held, Layered, Order, alignments, rank_correlations

Floats = npt.NDArray[np.float64]
TrackScores = dict[str, dict[str, Floats]]  # dimension -> score -> (L,)

# Classical features whose own matrices are held against the dimensions and the boundaries too.
_REFERENCES = {"mel": "", "mfcc": "timbre", "chroma": "harmony"}


class Prepared:
    """The dimensions of a track and their nulls, ready for any number of subjects.

    Only bins in which a dimension is known count; its nulls move it among these.
    """

    def __init__(self, view: TrackView, draws: int) -> None:
        rng = draws_of(view.track.track_id)
        self.gap, self.draws = view.gap, draws
        self.known = {name: dimension.known for name, dimension in view.dimensions.items()}
        self.held = {n: Held(d.matrix, d.features[d.known]) for n, d in view.dimensions.items()}
        self.orders = {
            name: [np.arange(number), *_shifts(number, view.gap, rng, draws), *_shuffles(number, rng, draws)]
            for name, number in ((name, int(known.sum())) for name, known in self.known.items())
        }

    def compare(self, layers: Floats) -> TrackScores:
        """Layers (L, S, D) against every dimension: dimension -> score -> (L,).

        Scores are ``rank_correlation`` and ``cka``, each also ``_above_shifted`` and ``_above_shuffled``; without draws
        the first alone.
        """
        layered: dict[bytes, Layered] = {}  # by which bins are known: most dimensions know all
        found: TrackScores = {}
        for name, known in self.known.items():
            key = known.tobytes()
            if key not in layered:
                layered[key] = Layered(layers[:, known], self.gap)
            values = {"rank_correlation": rank_correlations(layered[key], self.held[name], self.orders[name])}
            if self.draws:
                values["cka"] = alignments(layered[key], self.held[name], self.orders[name])
            found[name] = {score: table[0] for score, table in values.items()}
            for score, table in values.items() if self.draws else ():
                shifted, shuffled = table[1 : 1 + self.draws], table[1 + self.draws :]
                found[name][f"{score}_above_shifted"] = table[0] - shifted.mean(axis=0)
                found[name][f"{score}_above_shuffled"] = table[0] - shuffled.mean(axis=0)
        return found


def _shifts(number: int, gap: int, rng: np.random.Generator, draws: int) -> list[Order]:
    least = min(max(1, gap), max(1, number // 4))
    return [np.roll(np.arange(number), rng.integers(least, max(least + 1, number - least + 1))) for _ in range(draws)]


def _shuffles(number: int, rng: np.random.Generator, draws: int) -> list[Order]:
    return [rng.permutation(number) for _ in range(draws)]


def inspect_similarity(
    subjects: Sequence[InspectedModel],
    corpus: Corpus,
    config: SimilarityConfig,
    features: FeatureConfig,
    ledger: InspectionRows,
    device: str = "cpu",
    stage: Callable[[str, int], Callable[[], None]] = lambda name, total: lambda: None,
) -> None:
    """Rows ``ssm_profile``: one a subject, dimension and layer; ``selected`` is the layer that validation prefers.

    Args:
        subjects: The backbone first, its controls after it.
        corpus: What is looked at.
        config: See there.
        features: How tracks are cut.
        ledger: Takes the rows.
        device: Where backbones run.
        stage: Begins a stage of a progress bar.
    """
    number = sum(map(len, corpus.tracks.values()))
    about: list[InspectedModel | dict[str, Any]] = [*subjects]
    read: list[dict[str, Layers]] = []
    for subject in subjects:
        advance = stage(f"{subject.kind}: tokens of {number} tracks", number)
        read.append({n: layers_of(subject, tracks, features, device, advance) for n, tracks in corpus.tracks.items()})
    digest = subjects[0].backbone.front_end.config.digest()
    for kind, name in _REFERENCES.items():
        about.append({"path": kind, "digest": digest, "kind": kind})
        read.append(dict.fromkeys(corpus.tracks, functools.partial(_reference, name)))
    scores: list[dict[str, list[TrackScores]]] = [{split: [] for split in corpus.tracks} for _ in about]
    edges = [Edges() for _ in about]
    advance = stage(f"self-similarity of {number} tracks", number)
    for split, tracks in corpus.tracks.items():
        for place, view in enumerate(views(tracks, subjects[0], config, features, device)):
            prepared = Prepared(view, config.draws if split == "test" else 0)
            for layers_at, told, found in zip(read, scores, edges, strict=True):
                layers = layers_at[split](place, view)
                told[split].append(prepared.compare(layers))
                found.add(split, place, view, layers)
            advance()
    for subject_or_reference, told, found in zip(about, scores, edges, strict=True):
        _add_rows(subject_or_reference, told, ledger)
        found.write(subject_or_reference, ledger)


def _reference(name: str, place: int, view: TrackView) -> Floats:
    """A classical feature of a track over its bins, as the one layer of a system, (1, S, D)."""
    return (view.dimensions[name].features if name else view.mel)[None]


def _add_rows(
    about: InspectedModel | dict[str, Any], scores: dict[str, list[TrackScores]], ledger: InspectionRows
) -> None:
    for name in dict.fromkeys(name for track in scores["test"] for name in track):
        # A classical feature is no rival in the dimension that it defines.
        is_itself = not isinstance(about, InspectedModel) and _REFERENCES[about["kind"]] == name
        kept = [place for place, track in enumerate(scores["test"]) if name in track]
        told = [scores["test"][place][name] for place in kept]
        table = {score: np.array([track[score] for track in told]) for score in told[0]}  # each (T, L)
        valid = [track[name]["rank_correlation"] for track in scores["valid"] if name in track]
        on_valid = mean_over_tracks(np.array(valid)) if valid else np.full(table["rank_correlation"].shape[1], np.nan)
        chosen = None if np.isnan(on_valid).all() else int(np.nanargmax(on_valid))
        for layer in range(table["rank_correlation"].shape[1]):
            ledger.add(
                "ssm_profile",
                about,
                name,
                layer,
                {score: values[:, layer] for score, values in table.items()},
                kept,
                selected=layer == chosen and not is_itself,
                selection={
                    "split": "valid",
                    "metric": "rank_correlation",
                    "value": float(on_valid[layer]),
                },
            )
