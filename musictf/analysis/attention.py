"""Attention -> events: which heads tell onsets, beats, downbeats and chord changes, and how much better than chance.

For each target and curve the head is chosen by the validation split, test tells its scores. Every table has its
nulls: shifted and shuffled events, random weights, silence and noise in place of the music, and the spectral flux of
the log-mel, which any onset detector begins with. Attention maps belong to blocks: layers 1 to depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.analysis.curves import CURVES, read_curves, track_curves
from musictf.analysis.events import TARGETS, Events, Floats, events_of_splits
from musictf.analysis.heads import SplitScores, family_wise, peak_scores, score_split
from musictf.analysis.ledger import Ledger
from musictf.analysis.subjects import Corpus, Subject, repeated
from musictf.audio.io import audio_info
from musictf.errors import InputError
from musictf.models.controls import MelBackbone
from musictf.probing.features import FeatureConfig, extract

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
    blocks: int
    heads: int
    curves: tuple[str, ...]

    def unit(self, curve: int, best: int) -> tuple[int, int, int]:
        """Block (from 1), head (from 0) and unit of the ``best``-th head of a curve."""
        unit = best * len(self.curves) + curve
        return best // self.heads + 1, best % self.heads, unit


def inspect_attention(
    subjects: Sequence[Subject],
    corpus: Corpus,
    config: AttentionConfig,
    features: FeatureConfig,
    ledger: Ledger,
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


def flux_reading(corpus: Corpus, like: Subject, features: FeatureConfig, device: str) -> Reading:
    """The classical reference: one unit, no head."""
    mel = MelBackbone(like.backbone.front_end.config)

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for track in extract(mel, corpus.tracks[split], [0], features, device):
            yield flux_of(track.sequence[:, 0].numpy())[:, None], track.times.numpy()

    return Reading(lambda: curves("valid"), lambda: curves("test"), 1, 1, (FLUX,))


def _reading(
    subject: Subject, corpus: Corpus, features: FeatureConfig, device: str, advance: Callable[[], None]
) -> Reading:
    paths = {
        name: track_curves(subject.backbone, subject.tracks(tracks), features, device, advance)
        for name, tracks in corpus.tracks.items()
    }
    hop = subject.backbone.front_end.config

    def curves(split: str) -> Iterator[tuple[npt.NDArray[np.floating], Floats]]:
        for path, track in zip(paths[split], corpus.tracks[split], strict=True):
            found = read_curves(path)
            units = found.values.reshape(len(found.values), -1)
            if subject.hears is None:
                yield units, found.times
            else:  # as long as the track it stands for
                number = hop.num_frames(audio_info(track.audio).num_samples(hop.sample_rate))
                yield repeated(units, number), hop.frame_times(number)

    encoder = subject.backbone.encoder.config
    return Reading(lambda: curves("valid"), lambda: curves("test"), encoder.depth, encoder.num_heads, CURVES)


def _score(
    subject: Subject | dict[str, Any],
    reading: Reading,
    corpus: Corpus,
    events: dict[str, Events],
    config: AttentionConfig,
    ledger: Ledger,
    grid: bool,
) -> None:
    """Rows of one subject and target: the chosen head of each curve, and where ``grid``, all heads."""
    target = events["test"].target
    names = {split: [track.track_id for track in corpus.tracks[split]] for split in events}
    among = {split: each.among for split, each in events.items()}
    has_peaks = among["test"] is None  # the events of a track are not found by those among which they are
    valid = score_split(
        reading.valid(), events["valid"].times, names["valid"], 0, choosing=has_peaks, among=among["valid"]
    )
    # Controls need to know where chance lies; only of the backbone's heads is asked how seldom chance reaches them.
    draws = config.draws if grid else min(config.draws, _CONTROL_DRAWS)
    test = score_split(reading.test(), events["test"].times, names["test"], draws, among=among["test"])
    if not valid.tracks or not test.tracks:
        _say_undefined(target, "test" if valid.tracks else "valid", is_asked=config.targets != "auto")
        return
    chosen_by = valid.areas.mean(axis=0)
    quantiles = valid.best_quantiles if has_peaks else np.full(len(chosen_by), np.nan)
    corrected = family_wise(test.areas, test.null("shifted"))
    for curve, name in enumerate(reading.curves):
        mine = chosen_by[curve :: len(reading.curves)]
        block, head, unit = reading.unit(curve, int(mine.argmax()))
        on_test = test.areas.mean(axis=0)[curve :: len(reading.curves)]
        following = int((corrected[curve :: len(reading.curves)] < config.alpha).sum())
        ledger.add(
            f"attention_{target}",
            subject,
            name,
            block if len(reading.curves) > 1 else 0,
            _areas(test, unit)
            | (
                _peaks(reading, test, events["test"], names["test"], unit, quantiles[unit], config) if has_peaks else {}
            ),
            test.kept,
            selected=True,
            selection={"split": "valid", "metric": "auc", "value": float(mine[int(mine.argmax())])},
            decoder={"name": "peaks", "quantile": float(quantiles[unit])} if has_peaks else None,
            details={
                "p_corrected": float(corrected[unit]),
                "heads_that_follow": following,
                "draws": draws,
                "heads": len(mine),
                "median_auc_of_heads": float(np.median(on_test)),
                "events": sum(track.number for track in test.tracks),
                "merged": sum(track.merged for track in test.tracks),
            },
            head=head,
        )
        for best in range(len(mine)) if grid else ():
            block, head, unit = reading.unit(curve, best)
            ledger.add(
                f"attention_{target}",
                subject,
                f"{name}.h{head}",
                block,
                _areas(test, unit),
                test.kept,
                selected=False,
                selection={"split": "valid", "metric": "auc", "value": float(chosen_by[unit])},
                decoder={"name": "peaks", "quantile": float(quantiles[unit])} if has_peaks else None,
                details={"p_corrected": float(corrected[unit])},
                head=head,
            )


def _say_undefined(target: str, split: str, is_asked: bool) -> None:
    """A target whose events no token can be told by: an error where it was asked for, else a line."""
    text = f"attention: no {split} track has tokens with and without {target}"
    if is_asked:
        raise InputError(f"{text}; leave it out of attention.targets")
    print(f"musictf inspect: {text}; it is left out", file=sys.stderr)


def _areas(test: SplitScores, unit: int) -> dict[str, Floats]:
    """Areas of a unit on each track: as they are, by chance, and above it."""
    area = test.areas[:, unit]
    chance = {null: np.nanmean(test.null(null)[:, :, unit], axis=1) for null in ("shifted", "shuffled")}
    return {
        "auc": area,
        "auc_above_shifted": area - chance["shifted"],
        "auc_above_shuffled": area - chance["shuffled"],
    }


def _peaks(
    reading: Reading,
    test: SplitScores,
    events: Events,
    names: Sequence[str],
    unit: int,
    quantile: float,
    config: AttentionConfig,
) -> dict[str, Floats]:
    """F-measure of a unit's peaks on each track that has events."""
    found = []
    kept = set(test.kept)
    for place, (values, times) in enumerate(reading.test()):
        wanted = events.times[place]
        if place in kept and wanted is not None:
            found.append(peak_scores(values[:, unit], times, wanted, quantile, names[place], min(config.draws, 20)))
    table = {name: np.array([scores[name] for scores in found]) for name in found[0]}
    return table | {"f_measure_above_shifted": table["f_measure"] - table.pop("f_measure_shifted")}
