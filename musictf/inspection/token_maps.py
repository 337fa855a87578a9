"""Maps of sequence tokens: where chords, keys and beats lie among them, and whether roots stand in a circle of fifths.

Two flat views of each layer: principal components (PCA, no labels) and linear discriminants (LDA, of the classes that
are looked for). Both are fitted on validation tracks and shown and measured on test tracks. The order of roots is
measured by a rank correlation of distances, never by eye: 66 distances between the centroids of the twelve classes
against their steps round the circle of fifths; the chromatic circle stands beside it, and shuffled names are the null.

Shapes:  N tokens   D features   C classes
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mir_eval
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from musictf.annotations import PITCH_CLASSES, Beats, Chords
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import FeatureConfig, extract
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.inspection.inspection_rows import InspectionRows, write_arrays
from musictf.models.frame_controls import CONTROLS
from musictf.results.statistics import interval, resample_counts

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

VIEWS = ("chord_root", "key", "beat_phase")
PHASES = ("beat", "after", "between", "before")
MAPS = "token_maps.npz"
_FEWEST_CLASSES = 8
_RESAMPLES = 500
_NULL_DRAWS = 500


@dataclass(kw_only=True)
class TokenMapConfig:
    """Size of the token maps.

    Attributes:
        tokens_a_track: Tokens taken of each track, evenly spaced.
    """

    tokens_a_track: int = 200

    def __post_init__(self) -> None:
        if self.tokens_a_track < 2:
            raise InputError("token_maps.tokens_a_track must be at least 2")


@dataclass
class Tokens:
    """Tokens of a split with what is known of each: features by layer, class names by view, track of each token."""

    layers: list[Floats]  # each (N, D)
    names: dict[str, Names]  # each (N,), "" where nothing is known
    track: npt.NDArray[np.int64]  # (N,)


def classes_at(track: Track, times: Floats, view: str) -> Names:
    """Name of the class at each time (N,); empty where the track says nothing.

    ``beat_phase`` cuts the time between two beats in four: around the beat, after it, between, before the next.
    """
    names = np.full(len(times), "", dtype="<U8")
    if view == "key":
        key = track.annotation("key")
        return names if key is None else np.full(len(times), signature_of(key), dtype="<U8")
    if view == "chord_root":
        chords: Chords | None = track.annotation("chords")
        if chords is not None:
            place = np.searchsorted(chords.intervals[:, 0], times, side="right") - 1
            inside = (place >= 0) & (times < chords.intervals[place.clip(0), 1])
            roots = np.array([_root(label) for label in chords.labels], dtype="<U8")
            names = np.where(inside, roots[place.clip(0)], "")
        return names
    beats: Beats | None = track.annotation("beats")
    if beats is not None and len(beats.times) > 1:
        phase = np.interp(times, beats.times, np.arange(len(beats.times)), left=np.nan, right=np.nan) % 1
        known = ~np.isnan(phase)
        names[known] = np.array(PHASES, dtype="<U8")[np.rint(4 * phase[known]).astype(int) % 4]
    return names


def signature_of(key: str) -> str:
    """Tonic of a key whose signature it has: the relative major's, so that the twelve stand in fifths."""
    tonic, _, mode = key.partition(" ")
    number = mir_eval.key.KEY_TO_SEMITONE.get(tonic.lower())
    return "" if number is None else PITCH_CLASSES[(number + 3 * (mode == "minor")) % 12]


def circle_correlation(centroids: Floats, present: Sequence[int], step: int) -> float:
    """Spearman's correlation of distances between centroids with steps round a circle of twelve.

    Args:
        centroids: One a class, (C, D).
        present: Pitch class of each, C numbers 0 to 11.
        step: 7 for the circle of fifths, 1 for the chromatic circle.

    Returns:
        NaN with fewer than eight classes: some ten distances make any circle.
    """
    if len(present) < _FEWEST_CLASSES:
        return float("nan")
    place = np.asarray(present) * step % 12  # 7 is its own inverse modulo 12
    first, second = np.triu_indices(len(place), 1)
    apart = np.abs(place[first] - place[second])
    steps = np.minimum(apart, 12 - apart)
    distances = np.linalg.norm(centroids[first] - centroids[second], axis=1)
    found: float = np.corrcoef(rankdata(distances), rankdata(steps))[0, 1]
    return float(found)


def inspect_token_maps(
    subjects: Sequence[InspectedModel],
    corpus: Corpus,
    config: TokenMapConfig,
    features: FeatureConfig,
    ledger: InspectionRows,
    device: str = "cpu",
    stage: Callable[[str, int], Callable[[], None]] = lambda name, total: lambda: None,
) -> None:
    """Rows ``token_map``: one a subject, view and layer; and the flat maps of the backbone in ``token_maps.npz``.

    Scores are ``fifths`` and ``chromatic`` (rank correlations of centroid distances; roots and keys only) and
    ``lda_accuracy`` (mean over classes, test tokens), each with an interval over tracks.
    """
    number = sum(map(len, corpus.tracks.values()))
    front_end = subjects[0].backbone.front_end.config
    references = [
        InspectedModel(CONTROLS[k](front_end), k, 0, {"path": k, "digest": front_end.digest(), "kind": k})
        for k in ("mel", "chroma")
    ]
    drawn: dict[str, npt.NDArray[Any]] = {}
    for subject in [*(subject for subject in subjects if subject.replacement_audio is None), *references]:
        advance = stage(f"{subject.kind}: token maps of {number} tracks", number)
        tokens = {
            name: gather(subject, tracks, config, features, device, advance) for name, tracks in corpus.tracks.items()
        }
        for view in VIEWS:
            drawn |= _add_view(subject, view, tokens, ledger, keep=subject is subjects[0])
    write_arrays(ledger.folder / MAPS, drawn)


def gather(
    subject: InspectedModel,
    tracks: Sequence[Track],
    config: TokenMapConfig,
    features: FeatureConfig,
    device: str,
    advance: Callable[[], None],
) -> Tokens:
    """Evenly spaced tokens of tracks with their classes."""
    layers = list(range(subject.backbone.depth + 1))
    rows: list[npt.NDArray[np.floating]] = []
    names: dict[str, list[Names]] = {view: [] for view in VIEWS}
    for track, found in zip(tracks, extract(subject.backbone, tracks, layers, features, device, advance), strict=True):
        chosen = np.linspace(0, len(found.times) - 1, min(config.tokens_a_track, len(found.times))).round().astype(int)
        rows.append(found.sequence[chosen].float().numpy())
        times = found.times.numpy()[chosen]
        for view in VIEWS:
            names[view].append(classes_at(track, times, view))
    owner = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    stacked = np.concatenate(rows).astype(np.float64)
    return Tokens([stacked[:, k] for k in range(len(layers))], {v: np.concatenate(n) for v, n in names.items()}, owner)


def _add_view(
    subject: InspectedModel, view: str, tokens: dict[str, Tokens], ledger: InspectionRows, keep: bool
) -> dict[str, npt.NDArray[Any]]:
    valid, test = (tokens[name] for name in ("valid", "test"))
    known = {name: each.names[view] != "" for name, each in tokens.items()}
    shared = sorted(set(valid.names[view][known["valid"]]) & set(test.names[view][known["test"]]))
    if len(shared) < 2:
        return {}
    known = {name: np.isin(each.names[view], shared) for name, each in tokens.items()}
    drawn: dict[str, npt.NDArray[Any]] = {}
    kept = sorted({int(place) for place in test.track[known["test"]]})
    groups = ledger.corpus.groups(kept)
    draws = resample_counts(groups, _RESAMPLES) if len(set(groups)) > 1 else np.empty((0, len(kept)))
    for layer in range(len(test.layers)):
        fitted = _fit(valid.layers[layer][known["valid"]], valid.names[view][known["valid"]])
        whole = _measure(fitted and fitted[1], test, layer, view, known["test"], shared, draws)
        ledger.add(
            "token_map",
            subject,
            view,
            layer,
            {},
            kept,
            selected=False,
            whole=whole,
            details={"classes": len(shared), "tokens": int(known["test"].sum()), "chance": 1 / len(shared)},
        )
        if keep and fitted is not None:
            pca, lda = fitted
            rows = test.layers[layer][known["test"]]
            drawn[f"{view}/pca/{layer}"] = pca.transform(rows)[:, :2].astype(np.float32)
            drawn[f"{view}/lda/{layer}"] = lda.transform(rows)[:, :2].astype(np.float32)
            drawn[f"{view}/names"] = test.names[view][known["test"]]
    return drawn


def _fit(rows: Floats, names: Names) -> tuple[PCA, LinearDiscriminantAnalysis] | None:
    """Both views, or None where nothing can be learnt: tokens all the same, or no more of them than classes."""
    if len(rows) <= len(set(names)) or np.ptp(rows, axis=0).max() == 0:
        return None
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3, priors=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variables are collinear")
        lda.fit(rows, names)
    return PCA(n_components=min(2, rows.shape[1])).fit(rows), lda


def _measure(
    lda: LinearDiscriminantAnalysis | None,
    test: Tokens,
    layer: int,
    view: str,
    known: npt.NDArray[np.bool_],
    shared: list[str],
    draws: Floats,
) -> dict[str, tuple[float, float, float]]:
    """Scores of a layer with intervals over groups of tracks: sums by track and class make resampling cheap."""
    rows, names, owner = test.layers[layer][known], test.names[view][known], test.track[known]
    tracks = np.unique(owner)
    cell = np.searchsorted(tracks, owner) * len(shared) + np.searchsorted(shared, names)
    cells = len(tracks) * len(shared)
    counts = np.bincount(cell, minlength=cells).reshape(len(tracks), -1).astype(np.float64)
    is_right = np.full(len(rows), np.nan) if lda is None else (lda.predict(rows) == names).astype(np.float64)
    hits = np.bincount(cell, weights=is_right, minlength=cells).reshape(len(tracks), -1)
    scores: dict[str, Callable[[Floats], float]] = {"lda_accuracy": lambda w: _mean_ratio(w @ hits, w @ counts)}
    if set(shared) <= set(PITCH_CLASSES):
        sums = np.zeros((cells, rows.shape[1]))
        np.add.at(sums, cell, rows)
        totals = sums.reshape(len(tracks), len(shared), -1)
        present = np.array([PITCH_CLASSES.index(name) for name in shared])
        for name, step in (("fifths", 7), ("chromatic", 1)):
            scores[name] = lambda w, step=step: _circle(w, totals, counts, present, step)  # type: ignore[misc]
        scores["fifths_chance_high"] = lambda w: _chance(w, totals, counts, present)
    found = {}
    for name, score in scores.items():
        value, bounds = score(np.ones(len(tracks))), (float("nan"), float("nan"))
        if name != "fifths_chance_high" and len(draws) and not np.isnan(value):
            bounds = interval(np.array([score(draw) for draw in draws]), value)
        found[name] = (value, *bounds)
    return found


def _mean_ratio(hits: Floats, counts: Floats) -> float:
    return float(np.mean(hits[counts > 0] / counts[counts > 0])) if (counts > 0).any() else float("nan")


def _circle(weights: Floats, totals: Floats, counts: Floats, present: npt.NDArray[np.int64], step: int) -> float:
    number = weights @ counts
    there = number > 0
    centroids = np.tensordot(weights, totals, 1)[there] / number[there, None]
    return circle_correlation(centroids, [int(p) for p in present[there]], step)


def _chance(weights: Floats, totals: Floats, counts: Floats, present: npt.NDArray[np.int64]) -> float:
    """The 95th percentile of the correlation where the names of the classes are shuffled."""
    rng = np.random.default_rng(0)
    shuffled = [_circle(weights, totals, counts, rng.permutation(present), 7) for _ in range(_NULL_DRAWS)]
    return float(np.percentile(shuffled, 95))  # NaN where circles are not defined


def _root(label: str) -> str:
    if label in {"N", "X"}:
        return ""
    root = mir_eval.chord.encode(label)[0]
    return PITCH_CLASSES[root] if root >= 0 else ""
