"""Events that curves are held against: onsets, beats, downbeats, chord changes, and their nulls.

Conventions: times in seconds, ascending, within the track. ``librosa_onset`` is a proxy and named so wherever it
stands: what `librosa.onset.onset_detect` hears, for corpora whose onsets nobody has annotated. ``downbeat_among_beats``
and ``change_among_beats`` ask for metre and harmony where something happens anyway: beats that are downbeats, or on
which the chord changes, against all other beats.
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
# Seconds within which a beat is the one on which a chord changes.
_ON_THE_BEAT = 0.07
_LISTENING_RATE = 22050  # hertz, what librosa's defaults are meant for
# Shifts shorter than this leave events near where they were.
_SHORTEST_SHIFT = 1.0


@dataclass(frozen=True)
class Events:
    """Events of the tracks of a split, by target; None where a track is not annotated.

    Where ``among`` is given, the events are some of those: a curve must tell them from the others, not from silence.
    """

    target: str
    times: list[Floats | None]
    among: list[Floats | None] | None = None

    @property
    def is_there(self) -> bool:
        """Whether any track has an event."""
        return any(times is not None and len(times) > 0 for times in self.times)


def events_of(track: Track, target: str) -> Floats | None:
    """Event times of a track in seconds, (n,); None where it lacks the annotation.

    Raises:
        InputError: no such target, or the annotation cannot be read.
    """
    if target == "librosa_onset":
        return _librosa_onsets(track)
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
        wanted = events_of(track, "downbeat" if target.startswith("downbeat") else "chord_change")
        return None if beats is None or wanted is None else some_of(beats.times, wanted)
    raise InputError(f"attention.targets: {target!r} is unknown: any of {', '.join(TARGETS)}")


def chord_changes(chords: Chords) -> Floats:
    """Times in seconds at which one known chord gives way to another; not from or to ``X``.

    Example:
        >>> intervals = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
        >>> chord_changes(Chords(intervals, ["N", "C:maj", "C:maj", "X"]))
        array([1.])
    """
    pairs = zip(chords.labels, chords.labels[1:], chords.intervals[1:, 0], strict=False)
    return np.array([start for before, after, start in pairs if before != after and "X" not in (before, after)])


def some_of(beats: Floats, wanted: Floats) -> Floats:
    """Those of the beats (n,) that lie within 70 ms of a wanted time.

    Example:
        >>> some_of(np.array([0.5, 1.0, 1.5]), np.array([0.98, 1.25]))
        array([1.])
    """
    if not len(wanted):
        return np.empty(0)
    near = np.abs(beats[:, None] - wanted).min(axis=1) <= _ON_THE_BEAT
    return beats[near]


def all_events(tracks: Sequence[Track], targets: Sequence[str] | None = None) -> dict[str, Events]:
    """Events of some tracks by target.

    Args:
        tracks: The tracks.
        targets: Those to look for; by default all that are annotated, and the proxy where onsets are not.

    Raises:
        InputError: a target that was asked for is annotated on no track.
    """
    names = [name for name in TARGETS if name != "librosa_onset"] if targets is None else list(targets)
    found = {name: _events(tracks, name) for name in names}
    if targets is not None:
        if empty := [name for name, events in found.items() if not events.is_there]:
            raise InputError(f"attention.targets: no track has {empty[0]}; leave it out, or leave targets=auto")
        return found
    if not found["onset"].is_there:
        found["librosa_onset"] = _events(tracks, "librosa_onset")
    return {name: found[name] for name in TARGETS if name in found and found[name].is_there}


def events_of_splits(
    splits: Mapping[str, Sequence[Track]], targets: Sequence[str] | None = None
) -> dict[str, dict[str, Events]]:
    """`all_events` of each split: by default the targets that all splits have, and the proxy where one lacks onsets."""
    found = {split: all_events(tracks, targets) for split, tracks in splits.items()}
    shared = [name for name in TARGETS if all(name in own for own in found.values())]
    if targets is None and "onset" not in shared and "librosa_onset" not in shared:
        for split, tracks in splits.items():
            found[split].setdefault("librosa_onset", _events(tracks, "librosa_onset"))
        shared = [name for name in TARGETS if name == "librosa_onset" or name in shared]
    return {split: {name: own[name] for name in shared} for split, own in found.items()}


def draws_of(name: str) -> np.random.Generator:
    """The random draws of a track: they depend on its name alone, not on what was looked at before."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def shifted(events: Floats, seconds: float, rng: np.random.Generator) -> Floats:
    """The same events moved round the track by a random time: rhythm and density stay, places do not.

    Args:
        events: In seconds, (n,).
        seconds: Length of the track.
        rng: Source of the shift, at least one second where the track is long enough.
    """
    margin = min(_SHORTEST_SHIFT, seconds / 4)
    return np.sort((events + rng.uniform(margin, seconds - margin)) % seconds)


def shuffled(events: Floats, seconds: float, rng: np.random.Generator) -> Floats:
    """Events whose distances are those of the track in random order: density stays, rhythm and places do not."""
    gaps = np.diff(events, prepend=0.0, append=seconds)
    times: Floats = np.cumsum(rng.permutation(gaps))[:-1]
    return times


def _events(tracks: Sequence[Track], target: str) -> Events:
    times = [events_of(track, target) for track in tracks]
    if not target.endswith("_among_beats"):
        return Events(target, times)
    return Events(target, times, [events_of(track, "beat") for track in tracks])


def _librosa_onsets(track: Track) -> Floats:
    num_samples = audio_info(track.audio).num_samples(_LISTENING_RATE)
    return OnsetTask().classical_estimate(read_excerpt(track.audio, 0, num_samples, _LISTENING_RATE), _LISTENING_RATE)
