"""Events that attention curves are compared with (onsets, beats, downbeats, chord changes), and their null models.

Conventions: times in seconds, ascending, within the track. ``librosa_onset`` is a proxy for corpora without annotated
onsets: the estimate of `librosa.onset.onset_detect`. ``downbeat_among_beats`` and ``change_among_beats`` are beats that
are downbeats, or on which the chord changes, compared with all other beats: a head that merely follows beats scores
chance there.

Shapes:  n events of a track   m beats of a track
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musictf.annotations import Beats, Chords
from musictf.audio.io import audio_info, read_excerpt
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.tasks.onset import OnsetTask

Floats = npt.NDArray[np.float64]

TARGETS = ("onset", "librosa_onset", "beat", "downbeat", "chord_change", "downbeat_among_beats", "change_among_beats")
_BEAT_TOLERANCE = 0.07  # seconds between a beat and the downbeat or chord change on it, the tolerance of beat scores
_LIBROSA_RATE = 22_050  # hertz; the defaults of librosa's onset detection are meant for it
_SHORTEST_SHIFT = 1.0  # seconds; a shorter shift leaves most events within the tolerance of where they were


@dataclass(frozen=True)
class Events:
    """Events of one target on the tracks of a split.

    Attributes:
        target: One of `TARGETS`.
        times: Event times in seconds of each track, (n,); None where a track is not annotated.
        among: Times in seconds of all events of which ``times`` is a part, (m,); None where events are compared with
            all other tokens.
    """

    target: str
    times: list[Floats | None]
    among: list[Floats | None] | None = None

    @property
    def has_events(self) -> bool:
        """Whether any track has an event."""
        return any(times is not None and len(times) > 0 for times in self.times)


def events_of(track: Track, target: str) -> Floats | None:
    """Event times of a track.

    Args:
        track: The track; its audio is read for ``librosa_onset`` only.
        target: One of `TARGETS`.

    Returns:
        Times in seconds, (n,); None where the track lacks the annotation.

    Raises:
        InputError: no such target, or the annotation cannot be read.
    """
    if target == "librosa_onset":
        # Of the whole track at once: the detector normalises by the strongest onset.
        num_samples = audio_info(track.audio).num_samples(_LIBROSA_RATE)
        waveform = read_excerpt(track.audio, 0, num_samples, _LIBROSA_RATE)
        return OnsetTask().classical_estimate(waveform, _LIBROSA_RATE)
    if target == "onset":
        onsets = track.annotation("onsets")
        return None if onsets is None else np.asarray(onsets, dtype=np.float64)
    if target in {"beat", "downbeat"}:
        beats: Beats | None = track.annotation("beats")
        return None if beats is None else beats.times if target == "beat" else beats.downbeats
    if target == "chord_change":
        chords: Chords | None = track.annotation("chords")
        return None if chords is None else chord_changes(chords)
    if target in {"downbeat_among_beats", "change_among_beats"}:
        beats = track.annotation("beats")
        times = events_of(track, "downbeat" if target.startswith("downbeat") else "chord_change")
        return None if beats is None or times is None else beats_near(beats.times, times)
    raise InputError(f"attention.targets: {target!r} is unknown: any of {', '.join(TARGETS)}")


def chord_changes(chords: Chords) -> Floats:
    """Times in seconds at which the chord changes, (n,); a change from or to the unknown chord ``X`` does not count.

    Example:
        >>> intervals = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
        >>> chord_changes(Chords(intervals, ["N", "C:maj", "C:maj", "X"]))
        array([1.])
    """
    pairs = zip(chords.labels, chords.labels[1:], chords.intervals[1:, 0], strict=False)
    return np.array([start for before, after, start in pairs if before != after and "X" not in (before, after)])


def beats_near(beats: Floats, times: Floats) -> Floats:
    """The beats (m,) that lie within 70 ms of any of the times (n,), all in seconds.

    Example:
        >>> beats_near(np.array([0.5, 1.0, 1.5]), np.array([0.98, 1.25]))
        array([1.])
    """
    if not len(times):
        return np.empty(0)
    is_near = np.abs(beats[:, None] - times).min(axis=1) <= _BEAT_TOLERANCE  # (m,)
    return beats[is_near]


def all_events(tracks: Sequence[Track], targets: Sequence[str] | None = None) -> dict[str, Events]:
    """Events of the tracks of a split, by target.

    Args:
        tracks: The tracks.
        targets: Targets to read; by default all that are annotated, and the proxy where onsets are not annotated.

    Raises:
        InputError: a requested target is annotated on no track.
    """
    names = [name for name in TARGETS if name != "librosa_onset"] if targets is None else list(targets)
    events = {name: _events(tracks, name) for name in names}
    if targets is not None:
        if missing := [name for name, of_target in events.items() if not of_target.has_events]:
            raise InputError(f"attention.targets: no track has {missing[0]}; leave it out, or leave targets=auto")
        return events
    # The proxy needs the audio of all tracks decoded, so it is estimated only where it is needed.
    if not events["onset"].has_events:
        events["librosa_onset"] = _events(tracks, "librosa_onset")
    return {name: events[name] for name in TARGETS if name in events and events[name].has_events}


def events_of_splits(
    splits: Mapping[str, Sequence[Track]], targets: Sequence[str] | None = None
) -> dict[str, dict[str, Events]]:
    """Events by split and target, for the targets that every split has.

    Args:
        splits: Tracks by split.
        targets: As in `all_events`; by default the proxy also stands in where only one split lacks onsets.

    Raises:
        InputError: a requested target is annotated on no track of a split.
    """
    events = {split: all_events(tracks, targets) for split, tracks in splits.items()}
    shared = [name for name in TARGETS if all(name in by_target for by_target in events.values())]
    if targets is None and "onset" not in shared and "librosa_onset" not in shared:
        # A head is chosen on one split and scored on the other, so both need the same kind of onset.
        for split, tracks in splits.items():
            events[split].setdefault("librosa_onset", _events(tracks, "librosa_onset"))
        shared = [name for name in TARGETS if name == "librosa_onset" or name in shared]
    return {split: {name: by_target[name] for name in shared} for split, by_target in events.items()}


def _events(tracks: Sequence[Track], target: str) -> Events:
    times = [events_of(track, target) for track in tracks]
    if not target.endswith("_among_beats"):
        return Events(target, times)
    return Events(target, times, [events_of(track, "beat") for track in tracks])


def track_generator(track_id: str) -> np.random.Generator:
    """Random generator of a track: its draws depend on the track's id alone, not on which tracks came before."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(track_id.encode()).digest()[:8], "big"))


def shifted(events: Floats, seconds: float, rng: np.random.Generator) -> Floats:
    """Null model: all events moved by one random time, wrapped at the track's end.

    It keeps rhythm and density, and removes the relation to the music.

    Args:
        events: Times in seconds, (n,).
        seconds: Length of the track.
        rng: Source of the shift: at least one second, or a quarter of a track shorter than four.

    Returns:
        Times in seconds, ascending, (n,).
    """
    margin = min(_SHORTEST_SHIFT, seconds / 4)
    return np.sort((events + rng.uniform(margin, seconds - margin)) % seconds)


def shuffled(events: Floats, seconds: float, rng: np.random.Generator) -> Floats:
    """Null model: the gaps between events in random order.

    It keeps the density, and removes rhythm and the relation to the music.

    Args:
        events: Times in seconds, (n,).
        seconds: Length of the track.
        rng: Source of the order.

    Returns:
        Times in seconds, ascending, (n,).
    """
    gaps = np.diff(events, prepend=0.0, append=seconds)  # (n + 1,): from the start, between events, to the end
    times: Floats = np.cumsum(rng.permutation(gaps))[:-1]
    return times
