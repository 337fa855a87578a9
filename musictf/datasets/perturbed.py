"""Tracks as they sound after gain, noise, a codec, a pitch shift or a time stretch, labels changed to match.

Perturbed recordings are rendered once, at the recording's own rate, mono, and kept in the cache as 16-bit FLAC under
a name that covers the audio's content, the perturbation and the libraries that made it. What exceeds full scale is
clipped there, as in any file of whole numbers: a gain of +6 dB on a recording that peaks at 0 dB distorts it.
Rendering holds one whole recording in memory, with several spectrograms of it for pitch and stretch.

Conventions: a pitch shift moves roots of chords, the tonic of the key and the pitch of single notes, spelt with sharps;
a time stretch moves times of chords, beats, onsets and sections and the tempo; every other label stays. Labels in files
stay in files, and change as they are read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import librosa
import mir_eval
import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track as progress

from musictf.annotations import PITCH_CLASSES, Beats, Chords, Seconds, Sections
from musictf.audio.io import audio_info, read_excerpt
from musictf.audio.perturb import Perturbation, perturbation
from musictf.datasets.base import AnnotationFile, Track
from musictf.errors import InputError
from musictf.files import cache_folder, file_digest

RENDERING_VERSION = 1

_ROOT = re.compile(r"([A-G][b#]*)(.*)")
_MODES = "maj(?:or)?|min(?:or)?|m|other|ionian|dorian|phrygian|lydian|mixolydian|aeolian|locrian"
_KEY = re.compile(rf"([A-Ga-g][b#]*)([\s:_-]*(?i:{_MODES})?)")


def perturbed(track: Track, name: str, amount: float) -> Track:
    """A track as it sounds after a perturbation, rendered unless the cache has it.

    Args:
        track: The clean track. Its other versions are left out: they would no longer be aligned.
        name: One of `musictf.audio.perturb.PERTURBATIONS`.
        amount: In the perturbation's unit; the neutral amount gives the track back.

    Raises:
        InputError: no such perturbation or amount, the audio cannot be read, or a label cannot be transformed.
    """
    change = perturbation(name)
    change.check(amount, name)
    if amount == change.neutral:
        return track
    try:
        labels = {key: _label(key, value, name, amount) for key, value in track.labels.items()}
    except InputError as error:
        raise InputError(f"track {track.track_id}: {error}") from None
    return replace(track, audio=_rendered(track.audio, change, float(amount)), versions=(), labels=labels)


def perturbed_tracks(tracks: Sequence[Track], name: str, amount: float) -> list[Track]:
    """Every track after one perturbation, with a progress bar while recordings are rendered."""
    description = f"{name} {amount:g} {perturbation(name).unit}: {len(tracks)} tracks"
    bar = progress(tracks, description, transient=True, console=Console(stderr=True))
    return [perturbed(track, name, amount) for track in bar]


def transposed_chords(chords: Chords, semitones: float) -> Chords:
    """Chords with every root so many semitones higher; qualities, extras and bass are relative to it and stay."""
    return Chords(chords.intervals, [transposed_label(label, semitones) for label in chords.labels])


def transposed_label(label: str, semitones: float) -> str:
    """One Harte label with its root so many semitones higher; ``N`` and ``X`` stay.

    Example:
        >>> transposed_label("Bb:maj(9)/5", 2), transposed_label("N", 2)
        ('C:maj(9)/5', 'N')
    """
    match = _ROOT.fullmatch(label)
    return label if match is None else _higher(match[1], semitones) + match[2]


def transposed_key(key: str, semitones: float) -> str:
    """A key with its tonic so many semitones higher; what names no tonic (``X``, ``atonal``) stays.

    Raises:
        InputError: it names a tonic in a way that is not understood.

    Example:
        >>> transposed_key("Eb minor", -1)
        'D minor'
    """
    key = key.strip().replace("♯", "#").replace("♭", "b")
    match = _KEY.fullmatch(key)
    if match is not None:
        return _higher(match[1].capitalize(), semitones) + match[2]
    if re.search(r"\b[A-G][b#]*(?![A-Za-z])", key):
        raise InputError(f"key {key!r} cannot be transposed; write it as 'C# minor', or as 'X' where it has none")
    return key


def transposed_note(note: int | str, semitones: float) -> int | str:
    """A single note, as a MIDI number or a name, so many semitones higher.

    Example:
        >>> transposed_note(60, 2), transposed_note("A#4", 2)
        (62, 'C5')
    """
    if isinstance(note, int):
        return note + round(semitones)
    return str(librosa.midi_to_note(librosa.note_to_midi(note) + round(semitones), unicode=False))


def stretched_chords(chords: Chords, rate: float) -> Chords:
    """Chords of a recording ``rate`` times as fast."""
    return Chords(chords.intervals / rate, chords.labels)


def stretched_beats(beats: Beats, rate: float) -> Beats:
    """Beats of a recording ``rate`` times as fast."""
    return Beats(beats.times / rate, beats.positions)


def stretched_onsets(onsets: Seconds, rate: float) -> Seconds:
    """Onsets (n,) in seconds of a recording ``rate`` times as fast."""
    return np.asarray(onsets, dtype=np.float64) / rate


def stretched_sections(sections: Sections, rate: float) -> Sections:
    """Sections of a recording ``rate`` times as fast."""
    return Sections(sections.intervals / rate, sections.labels)


def stretched_tempo(tempo: float, rate: float) -> float:
    """Tempo, in beats per minute, of a recording ``rate`` times as fast.

    Raises:
        InputError: it is no number.
    """
    if isinstance(tempo, bool) or not isinstance(tempo, (int, float)):
        raise InputError(f"tempo {tempo!r} is no number of beats per minute; write it as one")
    return tempo * rate


# Perturbation -> label -> how it changes with the amount.
LABELS: dict[str, dict[str, Callable[[Any, float], Any]]] = {
    "pitch": {
        "chords": transposed_chords,
        "key": transposed_key,
        "pitch": transposed_note,
        "pitch_id": transposed_note,
    },
    "stretch": {
        "chords": stretched_chords,
        "beats": stretched_beats,
        "onsets": stretched_onsets,
        "sections": stretched_sections,
        "tempo": stretched_tempo,
        "tempo_bpm": stretched_tempo,
    },
}


def _label(key: str, value: Any, name: str, amount: float) -> Any:
    transform = LABELS.get(name, {}).get(key)
    if transform is None or value is None:
        return value
    if isinstance(value, AnnotationFile):
        return AnnotationFile(value.path, functools.partial(_read_transformed, value.read, transform, amount))
    return transform(value, amount)


def _read_transformed(
    read: Callable[[Path], Any], transform: Callable[[Any, float], Any], amount: float, path: Path
) -> Any:
    value = read(path)
    return None if value is None else transform(value, amount)


def _higher(root: str, semitones: float) -> str:
    return PITCH_CLASSES[(mir_eval.chord.pitch_class_to_semitone(root) + round(semitones)) % 12]


def _rendered(audio: Path, change: Perturbation, amount: float) -> Path:
    path = _entry(audio, change.name, amount)
    if path.is_file():
        return path
    info = audio_info(audio)
    waveform = change.apply(read_excerpt(audio, 0, info.frames, info.sample_rate), info.sample_rate, amount)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    soundfile.write(temporary, np.clip(waveform, -1, 1), info.sample_rate, format="FLAC", subtype="PCM_16")
    os.replace(temporary, path)
    return path


def _entry(audio: Path, name: str, amount: float) -> Path:
    """Where a perturbed recording is kept: a name that covers all that shapes its samples."""
    identity = {
        "audio": _audio_digest(str(audio), audio.stat().st_mtime_ns),
        "perturbation": name,
        "amount": amount,
        "version": RENDERING_VERSION,
        "made_by": [metadata.version("librosa"), soundfile.__libsndfile_version__],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "perturbed" / f"{digest}.flac"


@functools.lru_cache(maxsize=65536)
def _audio_digest(path: str, modified: int) -> str:
    return file_digest(Path(path))
