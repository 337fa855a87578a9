"""The similarity profile: the self-similarity of each layer compared with that of musical dimensions.

Shapes:  S bins   L layers   D features   T tracks

A layer's value in a dimension is the rank correlation of their matrices, or their alignment (CKA). Smooth series
correlate by themselves, so both are reported above two null models: the dimension shifted round the track by a random
time, which keeps its smoothness, and its bins shuffled. Random weights, silence, noise and classical features are
compared in the same way. Layer 0 is the projected input; the last layer is after the final norm.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musictf.inspection.binned_tracks import BinnedTrack, Layers, SimilarityConfig, binned_tracks, layers_of
from musictf.inspection.boundaries import Boundaries
from musictf.inspection.context import InspectionContext
from musictf.inspection.event_scores import mean_over_tracks
from musictf.inspection.events import track_generator
from musictf.inspection.inspected_models import InspectedModel, baseline
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import LayerMatrices, ReferenceMatrix, alignments, rank_correlations

Floats = npt.NDArray[np.float64]
TrackScores = dict[str, dict[str, Floats]]  # dimension -> score -> (L,)

# Baselines, and the dimension that is computed from the same features.
_BASELINES = {"mel": "", "mfcc": "timbre", "chroma": "harmony"}


class PreparedDimensions:
    """The dimensions of a track and their null models, ready to be compared with any number of models.

    Only bins in which a dimension is known count; its null models move it among these.

    Args:
        binned_track: The track.
        draws: Draws of each null model.
    """

    def __init__(self, binned_track: BinnedTrack, draws: int) -> None:
        rng = track_generator(binned_track.track.track_id)
        self.gap, self.draws = binned_track.gap, draws
        self.known = {name: dimension.known for name, dimension in binned_track.dimensions.items()}
        self.references = {
            name: ReferenceMatrix(dimension.matrix, dimension.features[dimension.known])
            for name, dimension in binned_track.dimensions.items()
        }
        self.orders = {}  # of the known bins: as they are, shifted, shuffled
        for name, known in self.known.items():
            bins = np.arange(int(known.sum()))
            least = min(max(1, self.gap), max(1, len(bins) // 4))  # a shorter shift would leave similar bins aligned
            most = max(least + 1, len(bins) - least + 1)
            shifts = [np.roll(bins, rng.integers(least, most)) for _ in range(draws)]
            shuffles = [rng.permutation(len(bins)) for _ in range(draws)]
            self.orders[name] = [bins, *shifts, *shuffles]

    def compare(self, layers: Floats) -> TrackScores:
        """Compare layers (L, S, D) with every dimension.

        Returns:
            Dimension -> score -> (L,). Scores are ``rank_correlation`` and ``cka``, and each of them
            ``_above_shifted`` and ``_above_shuffled``; without draws ``rank_correlation`` alone.
        """
        by_known: dict[bytes, LayerMatrices] = {}  # most dimensions are known in all bins and share the matrices
        scores: TrackScores = {}
        for name, known in self.known.items():
            key = known.tobytes()
            if key not in by_known:
                by_known[key] = LayerMatrices(layers[:, known], self.gap)
            values = {"rank_correlation": rank_correlations(by_known[key], self.references[name], self.orders[name])}
            if self.draws:
                values["cka"] = alignments(by_known[key], self.references[name], self.orders[name])
            scores[name] = {score: table[0] for score, table in values.items()}  # row 0: bins as they are
            for score, table in values.items() if self.draws else ():
                shifted, shuffled = table[1 : 1 + self.draws], table[1 + self.draws :]
                scores[name][f"{score}_above_shifted"] = table[0] - shifted.mean(axis=0)
                scores[name][f"{score}_above_shuffled"] = table[0] - shuffled.mean(axis=0)
        return scores


def inspect_similarity(context: InspectionContext, models: Sequence[InspectedModel], config: SimilarityConfig) -> None:
    """Add rows ``ssm_profile``, one a model, dimension and layer, and ``boundary``, one a kind of boundary.

    The selected layer of a dimension is the one with the highest rank correlation on validation.

    Args:
        context: What the inspection shares.
        models: The backbone first, its controls after it.
        config: How matrices are made and compared.
    """
    corpus = context.corpus
    layers_by_model: list[dict[str, Layers]] = []
    for model in models:
        advance = context.stage(f"{model.kind}: tokens of {context.num_tracks} tracks", context.num_tracks)
        layers_by_model.append(
            {split: layers_of(context, model, tracks, advance) for split, tracks in corpus.tracks.items()}
        )
    front_end = models[0].backbone.baseline_front_end
    compared = [*models, *(baseline(name, front_end) for name in _BASELINES)]
    for dimension in _BASELINES.values():
        layers_by_model.append(dict.fromkeys(corpus.tracks, functools.partial(_baseline_layers, dimension)))
    scores: list[dict[str, list[TrackScores]]] = [{split: [] for split in corpus.tracks} for _ in compared]
    boundaries = [Boundaries() for _ in compared]
    advance = context.stage(f"self-similarity of {context.num_tracks} tracks", context.num_tracks)
    # Tracks outside, models inside: the dimensions of a track are prepared once for all models.
    for split, tracks in corpus.tracks.items():
        for index, binned_track in enumerate(binned_tracks(context, tracks, models[0], config)):
            # Layers are chosen on validation by the rank correlation alone, which needs no draws.
            prepared = PreparedDimensions(binned_track, config.draws if split == "test" else 0)
            for layers_at, of_model, edges in zip(layers_by_model, scores, boundaries, strict=True):
                layers = layers_at[split](index, binned_track)
                of_model[split].append(prepared.compare(layers))
                edges.add(split, index, binned_track, layers)
            advance()
    for model, of_model, edges in zip(compared, scores, boundaries, strict=True):
        _add_rows(model, of_model, context.rows)
        edges.write(model, context.rows)


def _baseline_layers(dimension: str, index: int, binned_track: BinnedTrack) -> Floats:
    """A classical feature of a track over its bins as the only layer of a model, (1, S, D)."""
    return (binned_track.dimensions[dimension].features if dimension else binned_track.mel)[None]


def _add_rows(model: InspectedModel, scores: dict[str, list[TrackScores]], rows: InspectionRows) -> None:
    for name in dict.fromkeys(name for track in scores["test"] for name in track):
        track_indices = [index for index, track in enumerate(scores["test"]) if name in track]
        tracks = [scores["test"][index][name] for index in track_indices]
        table = {score: np.array([track[score] for track in tracks]) for score in tracks[0]}  # (T, L) each
        valid = [track[name]["rank_correlation"] for track in scores["valid"] if name in track]
        num_layers = table["rank_correlation"].shape[1]
        on_valid = mean_over_tracks(np.array(valid)) if valid else np.full(num_layers, np.nan)  # (L,)
        chosen = None if np.isnan(on_valid).all() else int(np.nanargmax(on_valid))
        # Mfcc and timbre are the same features, as are chroma and harmony: a correlation of 1 is no result.
        is_same_feature = _BASELINES.get(model.kind) == name
        for layer in range(num_layers):
            rows.add(
                "ssm_profile",
                model,
                name,
                layer,
                {score: values[:, layer] for score, values in table.items()},
                track_indices,
                selected=layer == chosen and not is_same_feature,
                selection={"split": "valid", "metric": "rank_correlation", "value": float(on_valid[layer])},
            )
