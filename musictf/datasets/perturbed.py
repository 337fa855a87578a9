"""Tracks after gain, noise, a codec, a pitch shift or a time stretch, with labels changed to match.

Perturbed recordings are rendered once, at the recording's own rate, mono, and kept in the cache as 16-bit FLAC under
a name that covers the audio's content, the perturbation and the versions of the libraries. Samples beyond full scale
are clipped, as in any file of integers: a gain of +6 dB on a recording that peaks at 0 dB distorts it. Rendering
holds one whole recording in memory, and several spectrograms of it for pitch and stretch.

Conventions: a pitch shift, in semitones, changes roots of chords, the tonic of the key and the pitch of single notes,
all spelt with sharps; a time stretch by ``rate`` divides times of chords, beats, onsets and sections, in seconds, by
the rate and multiplies the tempo by it; every other label stays. Labels in files change as they are read.

Shapes:  n onsets of a track
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

# Enters the name of cached files: raise it with every change of what is rendered.
RENDERING_VERSION = 1

_ROOT = re.compile(r"([A-G][b#]*)(.*)")
# A key is a tonic, then perhaps a mode, as the corpora write them (C major, c:min, F# dorian).
_MODES = "maj(?:or)?|min(?:or)?|m|other|ionian|dorian|phrygian|lydian|mixolydian|aeolian|locrian"
_KEY = re.compile(rf"([A-Ga-g][b#]*)([\s:_-]*(?i:{_MODES})?)")


def perturbed(track: Track, name: str, amount: float) -> Track:
    """A track after a perturbation; its audio is rendered unless it is in the cache.

    Args:
        track: The clean track. Its other versions are left out: they would no longer be aligned.
        name: One of `musictf.audio.perturb.PERTURBATIONS`.
        amount: In the perturbation's unit; with the neutral amount the same track is returned.

    Raises:
        InputError: no such perturbation or amount, the audio cannot be read, or a label cannot be transformed.
    """
    change = perturbation(name)
    change.check(amount, name)
    # The clean track itself: a rendering would be mono, of 16 bits, and clipped.
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
    """Chords with every root ``semitones`` higher; qualities, extras and bass are relative to the root and stay."""
    return Chords(chords.intervals, [transposed_label(label, semitones) for label in chords.labels])


def transposed_label(label: str, semitones: float) -> str:
    """One Harte label with its root ``semitones`` higher; ``N`` and ``X`` stay.

    Example:
        >>> transposed_label("Bb:maj(9)/5", 2), transposed_label("N", 2)
        ('C:maj(9)/5', 'N')
    """
    match = _ROOT.fullmatch(label)
    return label if match is None else _higher(match[1], semitones) + match[2]


def transposed_key(key: str, semitones: float) -> str:
    """A key with its tonic ``semitones`` higher; a text without a tonic (``X``, ``atonal``) stays.

    Raises:
        InputError: the text contains a tonic but is no key.

    Example:
        >>> transposed_key("Eb minor", -1)
        'D minor'
    """
    key = key.strip().replace("♯", "#").replace("♭", "b")
    match = _KEY.fullmatch(key)
    if match is not None:
        return _higher(match[1].capitalize(), semitones) + match[2]
    # Left as it is, such a key would be a wrong label.
    if re.search(r"\b[A-G][b#]*(?![A-Za-z])", key):
        raise InputError(f"key {key!r} cannot be transposed; write it as 'C# minor', or as 'X' where it has none")
    return key


def transposed_note(note: int | str, semitones: float) -> int | str:
    """A single note, as a MIDI number or a name, ``semitones`` higher.

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
    # True is an int in Python.
    if isinstance(tempo, bool) or not isinstance(tempo, (int, float)):
        raise InputError(f"tempo {tempo!r} is no number of beats per minute; write it as one")
    return tempo * rate


# Perturbation -> label -> function of the label and the amount. Perturbations that are missing change no label.
LABELS: dict[str, dict[str, Callable[[Any, float], Any]]] = {
    "pitch": {
        "chords": transposed_chords,
        "key": transposed_key,
        "pitch": transposed_note,  # of single notes: TinySOL has a name, NSynth a MIDI number
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
        # A partial, not a closure: a track must be picklable, for other processes.
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
    """The perturbed recording in the cache, under a name that covers everything that shapes its samples."""
    identity = {
        "audio": _audio_digest(str(audio), audio.stat().st_mtime_ns),
        "perturbation": change.name,
        "amount": amount,
        "version": RENDERING_VERSION,
        # Samples of a rendering depend on the versions of these libraries.
        "made_by": [metadata.version("librosa"), soundfile.__libsndfile_version__],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "perturbed" / f"{digest}.flac"
    if path.is_file():
        return path
    info = audio_info(audio)
    # (N,), mono: what the encoder reads of the clean file too.
    waveform = change.apply(read_excerpt(audio, 0, info.frames, info.sample_rate), info.sample_rate, amount)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The number of the process: two of them may render the same recording at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    soundfile.write(temporary, np.clip(waveform, -1, 1), info.sample_rate, format="FLAC", subtype="PCM_16")
    os.replace(temporary, path)
    return path


@functools.lru_cache(maxsize=65536)
def _audio_digest(path: str, modified: int) -> str:
    """Digest of a file; ``modified``, its time of change in ns, makes the cache read a changed file again."""
    return file_digest(Path(path))
