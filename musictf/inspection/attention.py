"""Attention and events: which heads mark onsets, beats, downbeats and chord changes, and how far above chance.

Shapes:  N tokens   T tracks   U = L * H * C units (block, head, curve)   R draws

For each target and curve, validation chooses the head and test gives its scores. Every table includes its null models
and controls: shifted and shuffled events, random weights, silence and noise in place of the music, and the spectral
flux of the log-mel, the classical onset curve. Attention maps belong to blocks: layers 1 to depth. The paper shows
attention maps without scores; how they are scored here is our choice.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.audio.io import audio_info
from musictf.errors import InputError
from musictf.features.extract import extract
from musictf.inspection.attention_curves import read_curves, track_curves
from musictf.inspection.context import InspectionContext
from musictf.inspection.event_scores import mean_over_tracks
from musictf.inspection.events import TARGETS, Events, Floats, events_of_splits
from musictf.inspection.head_scores import NULLS, SplitScores, family_wise, peak_scores, score_split
from musictf.inspection.inspected_models import InspectedModel, baseline, repeated
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.spectral_flux import flux_of
from musictf.results.names import ATTENTION_CURVES

# Makes an iterator over the tracks of a split: curves of all units (N, U) and token times in seconds (N,).
Curves = Callable[[], Iterator[tuple[npt.NDArray[np.floating], Floats]]]
FLUX = "flux"
_CONTROL_DRAWS = 20  # enough for the mean of a null model; p-values of the backbone's heads need `draws`


@dataclass(kw_only=True)
class AttentionConfig:
    """Which events attention is compared with.

    Attributes:
        targets: ``auto`` (all that the corpus annotates; librosa's onsets where onsets are not annotated) or a list.
        draws: Shifted and shuffled sets of events for each track of the test split.
        alpha: Level of significance of a head, corrected for the number of heads and curves.
    """

    targets: Any = "auto"
    draws: int = 100
    alpha: float = 0.05

    def __post_init__(self) -> None:
        is_list = isinstance(self.targets, list) and bool(self.targets)
        if self.targets != "auto" and not (is_list and set(self.targets) <= set(TARGETS)):
            raise InputError(f"attention.targets={self.targets!r}: auto, or a list of {', '.join(TARGETS)}")
        # The smallest p-value is 1 / (draws + 1).
        if self.draws < 20:
            raise InputError(f"attention.draws={self.draws}: with fewer than 20 no p-value is below .05")
        if not 0 < self.alpha < 1:
            raise InputError(f"attention.alpha={self.alpha} must lie between 0 and 1")


@dataclass
class ModelCurves:
    """Curves of one model on both splits, read again from the store each time they are iterated over.

    Attributes:
        valid: Curves of the validation tracks.
        test: Curves of the test tracks.
        heads: Number of heads in a block.
        curves: Names of the curves of a head.
    """

    valid: Curves
    test: Curves
    heads: int
    curves: tuple[str, ...]

    def unit(self, index: int) -> tuple[int, int, int]:
        """Block (from 1; 0 for a curve without heads), head (from 0) and curve of a unit."""
        head_index, curve = divmod(index, len(self.curves))
        block, head = divmod(head_index, self.heads)
        return (block + 1 if self.curves == ATTENTION_CURVES else 0), head, curve


def inspect_attention(context: InspectionContext, models: Sequence[InspectedModel], config: AttentionConfig) -> None:
    """Add rows ``attention_<target>`` of all models and of the spectral flux.

    Args:
        context: What the inspection shares.
        models: The backbone first, its controls after it.
        config: Targets and draws.

    Raises:
        InputError: a requested target is annotated nowhere.
    """
    events = events_of_splits(context.corpus.tracks, None if config.targets == "auto" else config.targets)
    targets = list(events["test"])
    for model in models:
        advance = context.stage(f"{model.kind}: attention of {context.num_tracks} tracks", context.num_tracks)
        curves = model_curves(context, model, advance)
        advance = context.stage(f"{model.kind}: scores", len(targets))
        for target in targets:
            of_target = {split: events[split][target] for split in events}
            _add_rows(context, model, curves, of_target, config, all_heads=model is models[0])
            advance()
    # The flux has no weights: it is scored once, whatever the models.
    curves = flux_curves(context, models[0])
    flux = baseline(FLUX, models[0].backbone.baseline_front_end)
    for target in targets:
        of_target = {split: events[split][target] for split in events}
        _add_rows(context, flux, curves, of_target, config, all_heads=False)


def flux_curves(context: InspectionContext, model: InspectedModel) -> ModelCurves:
    """The spectral flux on the front end of a model, as the only curve of a model without heads."""
    mel = baseline("mel", model.backbone.baseline_front_end).backbone

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for track in extract(mel, context.corpus.tracks[split], [0], context.features, context.device):
            yield flux_of(track.sequence[:, 0].numpy())[:, None], track.times.numpy()  # (N, 1), (N,)

    return ModelCurves(lambda: curves("valid"), lambda: curves("test"), 1, (FLUX,))


def model_curves(
    context: InspectionContext, model: InspectedModel, advance: Callable[[], None] = lambda: None
) -> ModelCurves:
    """Curves of every head of a model, computed where the feature store lacks them.

    Args:
        context: What the inspection shares.
        model: The model.
        advance: Called after each track.
    """
    corpus = context.corpus
    paths = {
        split: track_curves(model.backbone, model.tracks(tracks), context.features, context.device, advance)
        for split, tracks in corpus.tracks.items()
    }
    front_end = model.backbone.baseline_front_end

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for path, track in zip(paths[split], corpus.tracks[split], strict=True):
            stored = read_curves(path)
            units = stored.values.reshape(len(stored.values), -1)  # (N, L, H, C) -> (N, U)
            if model.reads_music:
                yield units, stored.times
            else:  # as many tokens as the track that the silence or noise replaces
                number = front_end.num_frames(audio_info(track.audio).num_samples(front_end.sample_rate))
                yield repeated(units, number), front_end.frame_times(number)

    return ModelCurves(lambda: curves("valid"), lambda: curves("test"), model.backbone.num_heads, ATTENTION_CURVES)


def _add_rows(
    context: InspectionContext,
    model: InspectedModel,
    curves: ModelCurves,
    events: dict[str, Events],
    config: AttentionConfig,
    all_heads: bool,
) -> None:
    """Add rows of one model and target: the chosen head of each curve and, where requested, all heads."""
    tracks = context.corpus.tracks
    draws = config.draws if all_heads else min(config.draws, _CONTROL_DRAWS)
    valid, test = (
        score_split(
            of_split(),
            events[split].times,
            [track.track_id for track in tracks[split]],
            draws if split == "test" else 0,
            # Among other events there is no decoder to choose: a peak elsewhere is neither right nor wrong.
            choosing=split == "valid" and events[split].among is None,
            among=events[split].among,
        )
        for split, of_split in (("valid", curves.valid), ("test", curves.test))
    )
    target = events["test"].target
    if not valid.tracks or not test.tracks:
        text = f"attention: no {'test' if valid.tracks else 'valid'} track has tokens with and without {target}"
        if all_heads and config.targets != "auto":
            raise InputError(f"{text}; leave it out of attention.targets")
        if all_heads:  # the reason lies in the events, so one message is enough for all models
            print(f"musictf inspect: {text}; it is left out", file=sys.stderr)
        return
    scores = _TargetScores(target, curves, valid, test, family_wise(test.areas, test.null("shifted")), draws)
    chosen = [scores.chosen(curve) for curve in range(len(curves.curves))]
    peaks: dict[int, dict[str, Floats]] = {}
    if events["test"].among is None:
        peaks = _peak_scores(scores, events["test"], [track.track_id for track in tracks["test"]], chosen)
    for unit in chosen:
        details = scores.details(unit, config.alpha)
        scores.add_row(context.rows, model, unit, scores.areas(unit) | peaks.get(unit, {}), details, selected=True)
    for unit in range(len(scores.on_valid)) if all_heads else ():
        details = {"p_corrected": float(scores.corrected[unit])}
        scores.add_row(context.rows, model, unit, scores.areas(unit), details, selected=False)


@dataclass
class _TargetScores:
    """Both splits of a model scored against one target, and the rows of its units."""

    target: str
    curves: ModelCurves
    valid: SplitScores
    test: SplitScores
    corrected: Floats  # p-values, (U,)
    draws: int

    @functools.cached_property
    def on_valid(self) -> Floats:
        """Area of each unit on validation, (U,)."""
        return self.valid.areas.mean(axis=0)

    @functools.cached_property
    def quantiles(self) -> Floats | None:
        """Quantile that the peaks of each unit must exceed, (U,); None where peaks are not scored."""
        return self.valid.best_quantiles if self.valid.tracks[0].quick.size else None

    def chosen(self, curve: int) -> int:
        """Unit of the head with the highest area on validation for a curve."""
        number = len(self.curves.curves)
        return curve + number * int(self.on_valid[curve::number].argmax())

    def areas(self, unit: int) -> dict[str, Floats]:
        """Areas of a unit on each track, (T,): as they are, and above the mean of each null model."""
        area = self.test.areas[:, unit]
        chance = {f"auc_above_{null}": mean_over_tracks(self.test.null(null)[:, :, unit].T) for null in NULLS}
        return {"auc": area} | {name: area - values for name, values in chance.items()}

    def details(self, unit: int, alpha: float) -> dict[str, Any]:
        """Results of a chosen head and of all heads of its curve."""
        heads = slice(self.curves.unit(unit)[2], None, len(self.curves.curves))
        areas, corrected = self.test.areas.mean(axis=0)[heads], self.corrected[heads]
        return {
            "p_corrected": float(self.corrected[unit]),
            "heads_that_follow": int((corrected < alpha).sum()),
            "draws": self.draws,
            "heads": len(areas),
            "median_auc_of_heads": float(np.median(areas)),
            "events": sum(track.number for track in self.test.tracks),
            "merged": sum(track.merged for track in self.test.tracks),
        }

    def add_row(
        self,
        rows: InspectionRows,
        model: InspectedModel,
        unit: int,
        scores: dict[str, Floats],
        details: dict[str, Any],
        selected: bool,
    ) -> None:
        """Add the row of a unit with its scores (T,); where it is not selected, the readout names the head."""
        block, head, curve = self.curves.unit(unit)
        name = self.curves.curves[curve]
        rows.add(
            f"attention_{self.target}",
            model,
            name if selected else f"{name}.h{head}",
            block,
            scores,
            self.test.track_indices,
            selected=selected,
            details=details,
            selection={"split": "valid", "metric": "auc", "value": float(self.on_valid[unit])},
            decoder=None if self.quantiles is None else {"name": "peaks", "quantile": float(self.quantiles[unit])},
            head=head,
        )


def _peak_scores(
    scores: _TargetScores, events: Events, names: Sequence[str], units: Sequence[int]
) -> dict[int, dict[str, Floats]]:
    """Scores of the peaks of some units on each scored test track, unit -> score -> (T,)."""
    by_unit: dict[int, list[dict[str, float]]] = {unit: [] for unit in units}
    scored, quantiles = set(scores.test.track_indices), scores.quantiles
    assert quantiles is not None
    # Tracks outside, units inside: the curves of a track are read from disk once.
    for index, (values, times) in enumerate(scores.curves.test()):
        reference = events.times[index]
        if index in scored and reference is not None:
            for unit, of_unit in by_unit.items():
                quantile = float(quantiles[unit])
                of_unit.append(peak_scores(values[:, unit], times, reference, quantile, names[index], _CONTROL_DRAWS))
    tables = {
        unit: {name: np.array([track[name] for track in of_unit]) for name in of_unit[0]}
        for unit, of_unit in by_unit.items()
    }
    return {
        unit: table | {"f_measure_above_shifted": table["f_measure"] - table.pop("f_measure_shifted")}
        for unit, table in tables.items()
    }
