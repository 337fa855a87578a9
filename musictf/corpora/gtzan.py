"""GTZAN: 1,000 clips of 30 s in ten genres, and beats of the same clips.

Tzanetakis and Cook, "Musical genre classification of audio signals", IEEE TSAP 2002. Beats and downbeats: Marchand,
Fresnel and Peeters, "GTZAN-Rhythm", ISMIR 2015 late-breaking; tempo with them: github.com/TempoBeatDownbeat.

Conventions: clips repeat, and some artists have many (Sturm, "The GTZAN dataset: its contents, its faults", 2013), so a
random split rewards memory of the recording. The default is the fault-filtered split of 930 clips in which no artist is
in two splits (`gtzan_filtered.txt`; ``gtzan_ff`` elsewhere). ``split=all`` takes the 1,000 clips with a split by a hash
of their name; artists are then in several splits, and the label contains ``random``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from musictf.annotations import Beats, read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import audio_folder
from musictf.datasets.tabular import read_text
from musictf.errors import InputError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
CLIPS_PER_GENRE = 100

# Genre folders of a copy: in the archive, in Kaggle's copy (two layouts), in the root itself.
AUDIO = ("genres", "genres_original", "Data/genres_original", ".")
BEATS = ("gtzan_tempo_beat-main/beats", "gtzan_tempo_beat/beats")
TEMPO = ("gtzan_tempo_beat-main/tempo", "gtzan_tempo_beat/tempo")
JAMS = ("jams", "rhythm/jams", "GTZAN-Rhythm/jams")

# A downbeat is one of the beats; GTZAN-Rhythm writes both with five digits.
SAME_BEAT_SECONDS = 5e-3


@dataclass(kw_only=True)
class GTZAN(Dataset):
    """Clips with a genre and, where their files exist, beats and tempo.

    Beats are read from ``gtzan_tempo_beat-main/beats`` (github.com/TempoBeatDownbeat/gtzan_tempo_beat), or else from
    the JAMS files of GTZAN-Rhythm; tempo from ``gtzan_tempo_beat-main/tempo``. A few clips have no such file.

    Attributes:
        root: Folder with ``genres/blues/blues.00000.wav`` (or ``.au``).
        split: ``filtered`` (930 clips, no artist in two splits) or ``all`` (1,000 clips, a split by hash).
    """

    name: ClassVar[str] = "gtzan"
    citation: ClassVar[str] = (
        "G. Tzanetakis, P. Cook: Musical genre classification of audio signals. IEEE TSAP 10(5), 2002; "
        "U. Marchand, Q. Fresnel, G. Peeters: GTZAN-Rhythm. ISMIR 2015 late-breaking"
    )
    license: ClassVar[str] = "none stated for the recordings; for research"
    homepage: ClassVar[str] = (
        "https://huggingface.co/datasets/marsyas/gtzan: data/genres.tar.gz (the first host is gone); "
        "beats and tempo: https://github.com/TempoBeatDownbeat/gtzan_tempo_beat, beside the folder genres"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 930, "train": 443, "valid": 197, "test": 290, "all": 1000}
    annotations: ClassVar[tuple[str, ...]] = ("genre", "tags", "beats", "tempo")
    known_bad: ClassVar[dict[str, str]] = {"jazz.00054": "unreadable in the common copy (wav)"}

    root: Any = None
    split: str = "filtered"

    def __post_init__(self) -> None:
        if self.split not in ("filtered", "all"):
            raise InputError(f"dataset.split={self.split!r} is unknown: one of filtered, all")

    @property
    def label(self) -> str:
        return "gtzan:filtered" if self.split == "filtered" else "gtzan:all-random"

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        # A folder counts if it holds a genre: the root exists in any case.
        audio = next((root / name for name in AUDIO if any((root / name / genre).is_dir() for genre in GENRES)), None)
        if audio is None:
            raise InputError(
                f"{root} holds no folder of a genre (genres/blues); musictf data prepare gtzan ROOT lists what a "
                "copy lacks"
            )
        if self.split == "filtered":
            splits = _filtered_splits()
        else:
            clips = (f"{genre}.{number:05d}" for genre in GENRES for number in range(CLIPS_PER_GENRE))
            splits = {clip: derived_split(clip) for clip in clips}
        return [_track(root, audio, clip, split) for clip, split in sorted(splits.items())]


def _filtered_splits() -> dict[str, str]:
    """Split of each clip of the fault-filtered lists."""
    splits: dict[str, str] = {}
    for line in read_text(Path(__file__).with_name("gtzan_filtered.txt")).splitlines():
        if line.startswith("#"):
            continue
        split, genre, *ranges = line.split()  # train blues 0-11 13 ...
        for first, _, last in (numbers.partition("-") for numbers in ranges):
            splits.update((f"{genre}.{n:05d}", split) for n in range(int(first), int(last or first) + 1))
    return splits


def _track(root: Path, folder: Path, clip: str, split: str) -> Track:
    genre, number = clip.split(".")
    labels: dict[str, Any] = {"genre": genre, "tags": [genre]}
    annotation = f"gtzan_{genre}_{number}"
    # In order of preference: a label takes the first file that exists.
    sources: tuple[tuple[str, Path, Callable[[Path], Any]], ...] = (
        ("beats", audio_folder(root, *BEATS) / f"{annotation}.beats", read_beats),
        ("beats", audio_folder(root, *JAMS) / f"{clip}.wav.jams", read_jams_beats),
        ("tempo", audio_folder(root, *TEMPO) / f"{annotation}.bpm", read_tempo),
    )
    for name, path, read in sources:
        if name not in labels and path.is_file():
            labels[name] = AnnotationFile(path, read)
    audio = folder / genre / f"{clip}.wav"
    # The archive has .au, later copies .wav.
    if not audio.is_file() and audio.with_suffix(".au").is_file():
        audio = audio.with_suffix(".au")
    return Track(track_id=clip, audio=audio, split=split, group=clip, labels=labels)


def read_tempo(path: Path) -> float:
    """Tempo in beats per minute of a ``.bpm`` file with one number.

    Raises:
        InputError: it is not one.
    """
    text = read_text(path).strip()
    try:
        tempo = float(text)
    except ValueError:
        raise InputError(f"{path}:1: expected beats per minute, found {text[:40]!r}") from None
    if not 0 < tempo < float("inf"):
        raise InputError(f"{path}:1: expected beats per minute, found {text[:40]!r}")
    return tempo


def read_jams_beats(path: Path) -> Beats:
    """Beats of a JAMS file of GTZAN-Rhythm, which has beats and downbeats as two lists of times.

    Positions count up from each downbeat, 1. Beats before the first one count from 2: of them only is known that they
    are no downbeats.

    Raises:
        InputError: it does not parse, has no beats, or a downbeat is not one of them.
    """
    beats, downbeats = (_jams_times(path, kind) for kind in ("beat", "downbeat"))
    is_downbeat = np.any(np.abs(beats[:, None] - downbeats[None]) < SAME_BEAT_SECONDS, axis=1)  # (beats,)
    if np.count_nonzero(is_downbeat) != len(downbeats):
        raise InputError(f"{path}: {len(downbeats)} downbeats, of which {np.count_nonzero(is_downbeat)} are beats")
    position, positions = 1, []  # a first beat that is no downbeat gets position 2
    for starts_bar in is_downbeat.tolist():
        position = 1 if starts_bar else position + 1
        positions.append(position)
    return Beats(beats, np.asarray(positions, dtype=np.int64))


def _jams_times(path: Path, kind: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ascending times in seconds of the annotation of a kind (``beat``, ``downbeat``)."""
    try:
        annotations = json.loads(read_text(path))["annotations"]
        # The sandbox of a list states its kind.
        lists = [entry["data"] for entry in annotations if entry.get("sandbox", {}).get("annotation_type") == kind]
        times = [float(event["time"]) for event in lists[0]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise InputError(f"{path}: expected JAMS with a {kind!r} annotation, as GTZAN-Rhythm has it") from None
    return np.unique(np.asarray(times, dtype=np.float64))
