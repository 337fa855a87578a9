"""Attention -> events: which heads tell onsets, beats, downbeats and chord changes, and how much better than chance.

For each target and curve the head is chosen by the validation split, test tells its scores. Every table has its
nulls: shifted and shuffled events, random weights, silence and noise in place of the music, and the spectral flux of
the log-mel, which any onset detector begins with. Attention maps belong to blocks: layers 1 to depth.
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
from musictf.features.extract import FeatureConfig, extract
from musictf.inspection.attention_curves import read_curves, track_curves
from musictf.inspection.event_scores import mean_over_tracks
from musictf.inspection.events import TARGETS, Events, Floats, events_of_splits
from musictf.inspection.head_scores import NULLS, SplitScores, family_wise, peak_scores, score_split
from musictf.inspection.inspected_models import Corpus, InspectedModel, repeated
from musictf.inspection.inspection_rows import InspectionRows
from musictf.models.frame_controls import MelControl
from musictf.results.names import ATTENTION_CURVES

Curves = Callable[[], Iterator[tuple[npt.NDArray[np.floating], Floats]]]
FLUX = "flux"
_CONTROL_DRAWS = 20


@dataclass(kw_only=True)
class AttentionConfig:
    """What attention is held against.

    Attributes:
        targets: ``auto`` (all that the corpus annotates; librosa's onsets where onsets are not) or a list.
        draws: Shifted and shuffled sets of events for each track of the test split.
        alpha: Level at which a head is said to follow a target, corrected for their number.
    """

    targets: Any = "auto"
    draws: int = 100
    alpha: float = 0.05

    def __post_init__(self) -> None:
        is_list = isinstance(self.targets, list) and bool(self.targets)
        if self.targets != "auto" and not (is_list and set(self.targets) <= set(TARGETS)):
            raise InputError(f"attention.targets={self.targets!r}: auto, or a list of {', '.join(TARGETS)}")
        if self.draws < 20:
            raise InputError(f"attention.draws={self.draws}: with fewer than 20 no p-value is below .05")
        if not 0 < self.alpha < 1:
            raise InputError(f"attention.alpha={self.alpha} must lie between 0 and 1")


@dataclass
class Reading:
    """Curves of one subject on both splits, and how its units are named."""

    valid: Curves
    test: Curves
    heads: int
    curves: tuple[str, ...]

    def place(self, unit: int) -> tuple[int, int, int]:
        """Block (from 1; 0 for a curve without heads), head (from 0) and curve of a unit."""
        best, curve = divmod(unit, len(self.curves))
        block, head = divmod(best, self.heads)
        return (block + 1 if self.curves == ATTENTION_CURVES else 0), head, curve


def inspect_attention(
    subjects: Sequence[InspectedModel],
    corpus: Corpus,
    config: AttentionConfig,
    features: FeatureConfig,
    ledger: InspectionRows,
    device: str = "cpu",
    stage: Callable[[str, int], Callable[[], None]] = lambda name, total: lambda: None,
) -> None:
    """Rows ``attention_<target>`` of all subjects.

    Args:
        subjects: The backbone first, its controls after it.
        corpus: What is looked at.
        config: See there.
        features: How tracks are cut.
        ledger: Takes the rows.
        device: Where backbones run.
        stage: Begins a stage of a progress bar.

    Raises:
        InputError: a target that was asked for is annotated nowhere.
    """
    events = events_of_splits(corpus.tracks, None if config.targets == "auto" else config.targets)
    shared = list(events["test"])
    number = sum(map(len, corpus.tracks.values()))
    for subject in subjects:
        advance = stage(f"{subject.kind}: attention of {number} tracks", number)
        reading = _reading(subject, corpus, features, device, advance)
        advance = stage(f"{subject.kind}: scores", len(shared))
        for target in shared:
            pair = {name: events[name][target] for name in events}
            _score(subject, reading, corpus, pair, config, ledger, grid=subject is subjects[0])
            advance()
    reading = flux_reading(corpus, subjects[0], features, device)
    about = {"path": FLUX, "digest": subjects[0].backbone.front_end.config.digest(), "kind": "classical"}
    for target in shared:
        _score(about, reading, corpus, {name: events[name][target] for name in events}, config, ledger, grid=False)


def flux_of(mel: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Spectral flux of a log-mel (N, F) in dB: the mean over bands of what has grown since the last frame, (N,)."""
    frames = np.asarray(mel, dtype=np.float32)
    grown: npt.NDArray[np.floating] = np.maximum(np.diff(frames, axis=0, prepend=frames[:1]), 0).mean(axis=1)
    return grown


def flux_reading(corpus: Corpus, like: InspectedModel, features: FeatureConfig, device: str) -> Reading:
    """The classical reference: one unit, no head."""
    mel = MelControl(like.backbone.front_end.config)

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for track in extract(mel, corpus.tracks[split], [0], features, device):
            yield flux_of(track.sequence[:, 0].numpy())[:, None], track.times.numpy()

    return Reading(lambda: curves("valid"), lambda: curves("test"), 1, (FLUX,))


def _reading(
    subject: InspectedModel, corpus: Corpus, features: FeatureConfig, device: str, advance: Callable[[], None]
) -> Reading:
    paths = {
        name: track_curves(subject.backbone, subject.tracks(tracks), features, device, advance)
        for name, tracks in corpus.tracks.items()
    }
    grid = subject.backbone.grid

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for path, track in zip(paths[split], corpus.tracks[split], strict=True):
            found = read_curves(path)
            units = found.values.reshape(len(found.values), -1)
            if subject.replacement_audio is None:
                yield units, found.times
            else:  # as long as the track it stands for
                number = grid.num_tokens(audio_info(track.audio).num_samples(grid.sample_rate))
                yield repeated(units, number), grid.times(number)

    return Reading(lambda: curves("valid"), lambda: curves("test"), subject.backbone.num_heads, ATTENTION_CURVES)


def _score(
    subject: InspectedModel | dict[str, Any],
    reading: Reading,
    corpus: Corpus,
    events: dict[str, Events],
    config: AttentionConfig,
    ledger: InspectionRows,
    grid: bool,
) -> None:
    """Rows of one subject and target: the chosen head of each curve, and where ``grid``, all heads."""
    # Only of the backbone's heads is asked exactly how seldom chance reaches them.
    draws = config.draws if grid else min(config.draws, _CONTROL_DRAWS)
    valid, test = (
        score_split(
            curves(),
            events[split].times,
            [track.track_id for track in corpus.tracks[split]],
            draws if split == "test" else 0,
            choosing=split == "valid" and events[split].among is None,
            among=events[split].among,
        )
        for split, curves in (("valid", reading.valid), ("test", reading.test))
    )
    target = events["test"].target
    if not valid.tracks or not test.tracks:
        if grid:  # it is the events' doing: once is enough
            _say_undefined(target, "test" if valid.tracks else "valid", is_asked=config.targets != "auto")
        return
    scored = _Scored(target, reading, valid, test, family_wise(test.areas, test.null("shifted")), draws)
    names = [track.track_id for track in corpus.tracks["test"]]
    best = [scored.best(curve) for curve in range(len(reading.curves))]
    found = _peaks(scored, events["test"], names, best) if events["test"].among is None else {}
    for curve, unit in enumerate(best):
        scores = scored.areas(unit) | found.get(unit, {})
        details = scored.details(curve, unit, config.alpha)
        ledger.add(*scored.cell(subject, unit, scores), selected=True, details=details, **scored.choice(unit))
    for unit in range(len(scored.on_valid)) if grid else ():
        task, subject, name, layer, scores, kept = scored.cell(subject, unit, scored.areas(unit))
        details = {"p_corrected": float(scored.corrected[unit])}
        choice = scored.choice(unit)
        ledger.add(
            task, subject, f"{name}.h{choice['head']}", layer, scores, kept, selected=False, details=details, **choice
        )


@dataclass
class _Scored:
    """Both splits scored against one target, and what rows say of a unit."""

    target: str
    reading: Reading
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
        """Quantile above which peaks of each unit stand, (U,); None where no peaks are looked for."""
        return self.valid.best_quantiles if self.valid.tracks[0].quick.size else None

    def best(self, curve: int) -> int:
        """Unit of the head that validation prefers for a curve."""
        number = len(self.reading.curves)
        return curve + number * int(self.on_valid[curve::number].argmax())

    def cell(self, subject: InspectedModel | dict[str, Any], unit: int, scores: dict[str, Floats]) -> tuple[Any, ...]:
        """First arguments of a row."""
        block, _, curve = self.reading.place(unit)
        return f"attention_{self.target}", subject, self.reading.curves[curve], block, scores, self.test.kept

    def choice(self, unit: int) -> dict[str, Any]:
        """Head, and what was chosen for it on validation."""
        quantiles = self.quantiles
        return {
            "head": self.reading.place(unit)[1],
            "selection": {"split": "valid", "metric": "auc", "value": float(self.on_valid[unit])},
            "decoder": None if quantiles is None else {"name": "peaks", "quantile": float(quantiles[unit])},
        }

    def details(self, curve: int, unit: int, alpha: float) -> dict[str, Any]:
        """What is known of a chosen head and of all heads of its curve."""
        heads = slice(curve, None, len(self.reading.curves))
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

    def areas(self, unit: int) -> dict[str, Floats]:
        """Areas of a unit on each track: as they are, and above chance."""
        area = self.test.areas[:, unit]
        chance = {f"auc_above_{null}": mean_over_tracks(self.test.null(null)[:, :, unit].T) for null in NULLS}
        return {"auc": area} | {name: area - values for name, values in chance.items()}


def _say_undefined(target: str, split: str, is_asked: bool) -> None:
    """A target whose events no token can be told by: an error where it was asked for, else a line."""
    text = f"attention: no {split} track has tokens with and without {target}"
    if is_asked:
        raise InputError(f"{text}; leave it out of attention.targets")
    print(f"musictf inspect: {text}; it is left out", file=sys.stderr)


def _peaks(scored: _Scored, events: Events, names: Sequence[str], units: Sequence[int]) -> dict[int, dict[str, Floats]]:
    """Scores of the peaks of some units on each track that was scored, by unit; every track is read once."""
    found: dict[int, list[dict[str, float]]] = {unit: [] for unit in units}
    kept, quantiles = set(scored.test.kept), scored.quantiles
    assert quantiles is not None
    for place, (values, times) in enumerate(scored.reading.test()):
        wanted = events.times[place]
        if place in kept and wanted is not None:
            for unit, told in found.items():
                quantile = float(quantiles[unit])
                told.append(peak_scores(values[:, unit], times, wanted, quantile, names[place], _CONTROL_DRAWS))
    tables = {
        unit: {name: np.array([scores[name] for scores in told]) for name in told[0]} for unit, told in found.items()
    }
    return {
        unit: table | {"f_measure_above_shifted": table["f_measure"] - table.pop("f_measure_shifted")}
        for unit, table in tables.items()
    }
