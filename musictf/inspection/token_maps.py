"""Maps of sequence tokens: where chord roots, keys and beat phases lie, and whether roots form a circle of fifths.

Each layer is projected to a plane in two ways: principal components (PCA, without labels) and linear discriminants
(LDA, of the classes). Both are fitted on validation tracks and drawn and scored on test tracks. The order of roots is
measured by a rank correlation of distances: the 66 distances between the centroids of the twelve classes against their
steps round the circle of fifths. The chromatic circle is scored as well, and shuffled names are the null model. The
paper shows such pictures; these scores are our choice.

Shapes:  N tokens   D features   C classes   T tracks   R resamples
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
from musictf.features.extract import extract
from musictf.inspection.context import InspectionContext
from musictf.inspection.inspected_models import InspectedModel, baseline
from musictf.inspection.inspection_rows import InspectionRows, write_arrays
from musictf.results.statistics import interval, resample_counts

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]
Maps = dict[str, npt.NDArray[Any]]  # arrays of `token_maps.npz`

VIEWS = ("chord_root", "key", "beat_phase")
PHASES = ("beat", "after", "between", "before")
MAPS = "token_maps.npz"
_FEWEST_CLASSES = 8  # with fewer, any few points lie near some circle
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
    """Tokens of a split with their classes.

    Attributes:
        layers: Features of each layer, (N, D).
        names: Class names by view, (N,), ``""`` where unknown.
        track: Index of the track of each token, (N,).
    """

    layers: list[Floats]
    names: dict[str, Names]
    track: npt.NDArray[np.int64]


def classes_at(track: Track, times: Floats, view: str) -> Names:
    """Class name at each time in seconds, (N,) -> (N,); empty where the track has no annotation.

    ``beat_phase`` divides the time between two beats in four: around the beat, after it, between, before the next.
    """
    names = np.full(len(times), "", dtype="<U8")
    if view == "key":
        key = track.annotation("key")
        return names if key is None else np.full(len(times), signature_of(key), dtype="<U8")
    if view == "chord_root":
        chords: Chords | None = track.annotation("chords")
        if chords is not None:
            index = np.searchsorted(chords.intervals[:, 0], times, side="right") - 1
            inside = (index >= 0) & (times < chords.intervals[index.clip(0), 1])
            numbers = [-1 if label in {"N", "X"} else mir_eval.chord.encode(label)[0] for label in chords.labels]
            roots = np.array([PITCH_CLASSES[number] if number >= 0 else "" for number in numbers], dtype="<U8")
            names = np.where(inside, roots[index.clip(0)], "")
        return names
    beats: Beats | None = track.annotation("beats")
    if beats is not None and len(beats.times) > 1:
        phase = np.interp(times, beats.times, np.arange(len(beats.times)), left=np.nan, right=np.nan) % 1
        known = ~np.isnan(phase)
        # Rounding centres each quarter on its phase: a token just before a beat belongs to the beat.
        names[known] = np.array(PHASES, dtype="<U8")[np.rint(4 * phase[known]).astype(int) % 4]
    return names


def signature_of(key: str) -> str:
    """Tonic of the major key with the same key signature: the twelve signatures are a circle of fifths."""
    tonic, _, mode = key.partition(" ")
    number = mir_eval.key.KEY_TO_SEMITONE.get(tonic.lower())
    return "" if number is None else PITCH_CLASSES[(number + 3 * (mode == "minor")) % 12]


def circle_correlation(centroids: Floats, present: Sequence[int], step: int) -> float:
    """Spearman's correlation of distances between centroids with steps round a circle of twelve.

    Args:
        centroids: One for each class, (C, D).
        present: Pitch class of each, C numbers 0 to 11.
        step: 7 for the circle of fifths, 1 for the chromatic circle.

    Returns:
        NaN with fewer than eight classes, where a few distances fit any circle.
    """
    if len(present) < _FEWEST_CLASSES:
        return float("nan")
    place = np.asarray(present) * step % 12  # 7 is its own inverse modulo 12
    first, second = np.triu_indices(len(place), 1)
    apart = np.abs(place[first] - place[second])
    steps = np.minimum(apart, 12 - apart)  # the shorter way round
    distances = np.linalg.norm(centroids[first] - centroids[second], axis=1)
    return float(np.corrcoef(rankdata(distances), rankdata(steps))[0, 1])


def inspect_token_maps(context: InspectionContext, models: Sequence[InspectedModel], config: TokenMapConfig) -> None:
    """Add rows ``token_map``, one a model, view and layer, and write the maps of the backbone to ``token_maps.npz``.

    Scores are ``fifths`` and ``chromatic`` (rank correlations of centroid distances; roots and keys only) and
    ``lda_accuracy`` (mean over classes, test tokens), each with an interval over tracks.

    Args:
        context: What the inspection shares.
        models: The backbone first, its controls after it. Those that read silence or noise are left out.
        config: How many tokens a map is made of.
    """
    front_end = models[0].backbone.baseline_front_end
    baselines = [baseline(name, front_end) for name in ("mel", "chroma")]
    maps: Maps = {}
    for model in [*(model for model in models if model.reads_music), *baselines]:
        advance = context.stage(f"{model.kind}: token maps of {context.num_tracks} tracks", context.num_tracks)
        tokens = {
            split: gather(context, model, tracks, config, advance) for split, tracks in context.corpus.tracks.items()
        }
        for view in VIEWS:
            maps |= _add_rows(context.rows, model, view, tokens, keep_maps=model is models[0])
    write_arrays(context.rows.folder / MAPS, maps)


def gather(
    context: InspectionContext,
    model: InspectedModel,
    tracks: Sequence[Track],
    config: TokenMapConfig,
    advance: Callable[[], None] = lambda: None,
) -> Tokens:
    """Evenly spaced tokens of the tracks of a split, with their classes.

    Args:
        context: What the inspection shares.
        model: The model.
        tracks: The tracks.
        config: How many tokens of each track.
        advance: Called after each track.
    """
    layers = list(range(model.backbone.depth + 1))
    rows: list[npt.NDArray[np.floating]] = []
    names: dict[str, list[Names]] = {view: [] for view in VIEWS}
    stored = extract(model.backbone, tracks, layers, context.features, context.device, advance)
    for track, features in zip(tracks, stored, strict=True):
        number = min(config.tokens_a_track, len(features.times))
        chosen = np.linspace(0, len(features.times) - 1, number).round().astype(int)
        rows.append(features.sequence[chosen].float().numpy())  # (number, L, D)
        times = features.times.numpy()[chosen]
        for view in VIEWS:
            names[view].append(classes_at(track, times, view))
    track_index = np.repeat(np.arange(len(rows)), [len(tokens) for tokens in rows])
    stacked = np.concatenate(rows).astype(np.float64)  # (N, L, D)
    return Tokens(
        [stacked[:, k] for k in range(len(layers))], {v: np.concatenate(n) for v, n in names.items()}, track_index
    )


def _add_rows(
    rows: InspectionRows, model: InspectedModel, view: str, tokens: dict[str, Tokens], keep_maps: bool
) -> Maps:
    """Add one row a layer; returns the maps of the layers if ``keep_maps`` is set, else an empty dict."""
    valid, test = (tokens[split] for split in ("valid", "test"))
    valid_names, test_names = valid.names[view], test.names[view]
    shared = sorted((set(valid_names.tolist()) & set(test_names.tolist())) - {""})
    if len(shared) < 2:
        return {}
    # Both splits are restricted to the classes that both have.
    in_valid, in_test = np.isin(valid_names, shared), np.isin(test_names, shared)
    maps: Maps = {}
    track_indices = sorted({int(index) for index in test.track[in_test]})
    groups = rows.corpus.groups(track_indices)
    # One group has no spread: its scores have no interval.
    draws = resample_counts(groups, _RESAMPLES) if len(set(groups)) > 1 else np.empty((0, len(track_indices)))
    for layer in range(len(test.layers)):
        fitted = _fit(valid.layers[layer][in_valid], valid_names[in_valid])
        rows.add(
            "token_map",
            model,
            view,
            layer,
            {},
            track_indices,
            selected=False,
            split_scores=_scores(fitted and fitted[1], test, layer, view, in_test, shared, draws),
            details={"classes": len(shared), "tokens": int(in_test.sum()), "chance": 1 / len(shared)},
        )
        if keep_maps and fitted is not None:
            pca, lda = fitted
            features = test.layers[layer][in_test]
            maps[f"{view}/pca/{layer}"] = pca.transform(features)[:, :2].astype(np.float32)
            maps[f"{view}/lda/{layer}"] = lda.transform(features)[:, :2].astype(np.float32)
            maps[f"{view}/names"] = test_names[in_test]
    return maps


def _fit(features: Floats, names: Names) -> tuple[PCA, LinearDiscriminantAnalysis] | None:
    """PCA and LDA of tokens (N, D) with class names (N,); None where they cannot be fitted."""
    # Tokens that are all equal, or no more of them than classes.
    if len(features) <= len(set(names)) or np.ptp(features, axis=0).max() == 0:
        return None
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3, priors=None)
    with warnings.catch_warnings():
        # Expected of layers whose features depend on each other; the shrinkage takes care of it.
        warnings.filterwarnings("ignore", message="Variables are collinear")
        lda.fit(features, names)
    return PCA(n_components=min(2, features.shape[1])).fit(features), lda


def _scores(
    lda: LinearDiscriminantAnalysis | None,
    test: Tokens,
    layer: int,
    view: str,
    known: npt.NDArray[np.bool_],
    shared: list[str],
    draws: Floats,
) -> dict[str, tuple[float, float, float]]:
    """Scores of a layer with intervals over groups of tracks; known (N,), draws (R, T)."""
    features, names, track_index = test.layers[layer][known], test.names[view][known], test.track[known]
    # Sums by track and class: a resample only weights the tracks (T,), and never touches the tokens again.
    tracks = np.unique(track_index)
    cell = np.searchsorted(tracks, track_index) * len(shared) + np.searchsorted(shared, names)
    cells = len(tracks) * len(shared)
    counts = np.bincount(cell, minlength=cells).reshape(len(tracks), -1).astype(np.float64)  # (T, C)
    is_right = np.full(len(features), np.nan) if lda is None else (lda.predict(features) == names).astype(np.float64)
    hits = np.bincount(cell, weights=is_right, minlength=cells).reshape(len(tracks), -1)  # (T, C)

    def accuracy(weights: Floats) -> float:
        """Mean over classes of the share of right tokens, of weighted tracks (T,)."""
        number = weights @ counts  # (C,)
        shares = (weights @ hits)[number > 0] / number[number > 0]
        return float(np.mean(shares)) if len(shares) else float("nan")

    scores: dict[str, Callable[[Floats], float]] = {"lda_accuracy": accuracy}
    if set(shared) <= set(PITCH_CLASSES):
        sums = np.zeros((cells, features.shape[1]))
        np.add.at(sums, cell, features)
        totals = sums.reshape(len(tracks), len(shared), -1)  # (T, C, D)
        present = np.array([PITCH_CLASSES.index(name) for name in shared])
        for name, step in (("fifths", 7), ("chromatic", 1)):
            scores[name] = lambda w, step=step: _circle(w, totals, counts, present, step)  # type: ignore[misc]
        scores["fifths_chance_high"] = lambda w: _chance(w, totals, counts, present)
    results = {}
    for name, score in scores.items():
        value, bounds = score(np.ones(len(tracks))), (float("nan"), float("nan"))
        if name != "fifths_chance_high" and len(draws) and not np.isnan(value):
            bounds = interval(np.array([score(draw) for draw in draws]), value)
        results[name] = (value, *bounds)
    return results


def _circle(weights: Floats, totals: Floats, counts: Floats, present: npt.NDArray[np.int64], step: int) -> float:
    """`circle_correlation` of weighted tracks (T,), of sums of tokens (T, C, D) and their counts (T, C)."""
    number = weights @ counts
    has_tokens = number > 0  # a resample may lack a class
    centroids = np.tensordot(weights, totals, 1)[has_tokens] / number[has_tokens, None]
    return circle_correlation(centroids, [int(p) for p in present[has_tokens]], step)


def _chance(weights: Floats, totals: Floats, counts: Floats, present: npt.NDArray[np.int64]) -> float:
    """The 95th percentile of the correlation where the names of the classes are shuffled."""
    rng = np.random.default_rng(0)
    shuffled = [_circle(weights, totals, counts, rng.permutation(present), 7) for _ in range(_NULL_DRAWS)]
    return float(np.percentile(shuffled, 95))  # NaN where the correlation is undefined
