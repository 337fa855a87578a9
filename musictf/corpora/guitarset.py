"""GuitarSet: solo acoustic guitar by six players, with chords, beats, keys and the notes of every string.

Xi, Bittner, Pauwels, Ye and Bello, "GuitarSet: a dataset for guitar transcription", ISMIR 2018.

Layout: ``annotation/<track>.jams`` and ``audio_mono-mic/<track>_mic.wav``; a track is named
``PLAYER_STYLE-TEMPO-KEY_comp|solo``.

Conventions: there is no official split. ``player`` is left out for the test split, as in leave-one-player-out
evaluations of guitar transcription; the player before is for validation. All six play the same thirty lead sheets, so
splits share chord sequences, but no recordings and no players. Accompaniment and solo of one sheet by one player are a
group. A JAMS file has two chord annotations: the lead sheet that the player read (``instructed``, the default) and the
chords as played, inferred from the notes (``performed``). The chords of a solo are those of its accompaniment, which is
not in the recording: ``dataset.playing=comp`` leaves solos out. Onsets are those of all strings together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from musictf.annotations import Beats, Chords, Seconds, assemble_beats, assemble_chords, longest_key
from musictf.datasets.base import AnnotationFile, Dataset, Track, single_root
from musictf.datasets.layout import annotation_files, annotation_folder
from musictf.datasets.tabular import read_object
from musictf.errors import InputError

PLAYERS = 6
# Folder and suffix of each recording: a microphone, or the six pickups mixed.
RECORDINGS = {"mic": ("audio_mono-mic", "_mic.wav"), "mix": ("audio_mono-pickup_mix", "_mix.wav")}
PLAYING = {"comp": ("_comp",), "solo": ("_solo",), "all": ("_comp", "_solo")}


@dataclass(kw_only=True)
class GuitarSet(Dataset):
    """Excerpts of about thirty seconds.

    Attributes:
        root: Folder with ``annotation`` and the audio folders.
        player: The player of the test split, 0 to 5.
        recording: ``mic``, the microphone, or ``mix``, the mixed pickups.
        playing: ``comp``, ``solo`` or ``all``.
        chords: ``instructed`` or ``performed``.
    """

    name: ClassVar[str] = "guitarset"
    citation: ClassVar[str] = "Xi, Bittner, Pauwels, Ye, Bello: GuitarSet, ISMIR 2018"
    license: ClassVar[str] = "audio and annotations: CC BY 4.0"
    homepage: ClassVar[str] = "https://zenodo.org/records/3371780: annotation.zip and audio_mono-mic.zip"
    published: ClassVar[dict[str, int]] = {"tracks": 360}
    annotations: ClassVar[tuple[str, ...]] = ("chords", "beats", "onsets", "key", "tempo")

    root: Any = None
    player: int = 5
    recording: str = "mic"
    playing: str = "all"
    chords: str = "instructed"

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        for key, choices in (("recording", RECORDINGS), ("playing", PLAYING), ("chords", CHORD_READERS)):
            if getattr(self, key) not in choices:
                raise InputError(f"dataset.{key}={getattr(self, key)} is not one of {', '.join(choices)}")
        if not 0 <= self.player < PLAYERS:
            raise InputError(f"dataset.player={self.player} is not one of 0 to {PLAYERS - 1}")
        paths = annotation_files(annotation_folder(root, self.name, "annotation"), self.name, "*.jams")
        return [self._track(root, path) for path in paths if path.stem.endswith(PLAYING[self.playing])]

    def _track(self, root: Path, path: Path) -> Track:
        folder, suffix = RECORDINGS[self.recording]
        try:
            player, sheet, _ = path.stem.split("_")
            distance = (self.player - int(player)) % PLAYERS
            tempo = float(sheet.split("-")[1])  # 00_BN1-129-Eb_comp: in beats per minute
        except (ValueError, IndexError):
            raise InputError(f"{path}: a track is named PLAYER_STYLE-TEMPO-KEY_comp or _solo") from None
        readers = {"chords": CHORD_READERS[self.chords], "beats": read_beats, "onsets": read_onsets, "key": read_key}
        # One JAMS file has all annotations.
        return Track(
            track_id=path.stem,
            audio=root / folder / f"{path.stem}{suffix}",
            split={0: "test", 1: "valid"}.get(distance, "train"),
            group=f"{player}_{sheet}",
            labels={"tempo": tempo} | {name: AnnotationFile(path, reader) for name, reader in readers.items()},
        )


def read_instructed(path: Path) -> Chords:
    """Chords of the lead sheet, the first chord annotation of a JAMS file."""
    return _chords(path, 0)


def read_performed(path: Path) -> Chords:
    """Chords inferred from the notes, the second chord annotation of a JAMS file."""
    return _chords(path, 1)


CHORD_READERS = {"instructed": read_instructed, "performed": read_performed}


def read_beats(path: Path) -> Beats:
    """Beats of a JAMS file with their positions in the bar."""
    (beats,) = _annotations(path, "beat_position", 1)
    return assemble_beats(((str(path), float(beat["time"]), int(beat["value"]["position"])) for beat in beats), path)


def read_key(path: Path) -> str | None:
    """The key with the longest total duration."""
    (keys,) = _annotations(path, "key_mode", 1)
    intervals = [(float(key["time"]), float(key["time"]) + float(key["duration"])) for key in keys]
    return longest_key(intervals, [str(key["value"]) for key in keys])


def read_onsets(path: Path) -> Seconds:
    """Onset times (n,) in seconds of the notes on all strings."""
    strings = _annotations(path, "note_midi", 6)  # one annotation a string
    # Sorted; strings struck at exactly the same time are one onset.
    return np.unique(np.array([float(note["time"]) for notes in strings for note in notes], dtype=np.float64))


def _chords(path: Path, which: int) -> Chords:
    chords = _annotations(path, "chord", 2)[which]
    times = [(float(chord["time"]), float(chord["duration"])) for chord in chords]
    return assemble_chords(
        ((str(path), start, start + length, str(chord["value"])) for (start, length), chord in zip(times, chords)), path
    )


def _annotations(path: Path, namespace: str, count: int) -> list[list[dict[str, Any]]]:
    """Observations of the annotations of one namespace, in the order of the file; there must be ``count`` of them."""
    annotations = read_object(path).get("annotations", ())
    data = [annotation["data"] for annotation in annotations if annotation.get("namespace") == namespace]
    if len(data) != count:
        raise InputError(f"{path}: {len(data)} annotations {namespace!r}, expected {count}")
    return data
