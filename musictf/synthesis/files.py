"""Files of a synthetic track: audio, annotations, and its line of the manifest.

The line is kept in a file of its own, written after all the others: if it exists, the track is complete. Every file
gets its name only when it is complete, and its bytes depend only on the recipe and the number of the track, so two
processes may make the same track at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musictf.annotations import write_beats, write_chords, write_onsets, write_sections
from musictf.files import write_atomically
from musictf.synthesis.composition import VERSION, compose
from musictf.synthesis.rendering import recorded_versions, tags

# Of every twenty tracks fourteen are for training, three each for validation and test, spread evenly.
VALID_POSITIONS, TEST_POSITIONS = (3, 10, 16), (6, 13, 19)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the files of a track besides its number.

    Attributes:
        seed: Seed of the corpus.
        seconds: Length of every recording.
        sample_rate: In hertz.
        num_versions: Recordings of each song besides the first.
    """

    seed: int
    seconds: float
    sample_rate: int
    num_versions: int

    @property
    def digest(self) -> str:
        """Name of the folder of these tracks (12 hexadecimal digits)."""
        content = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def track_name(index: int) -> str:
    """The track_id of a track."""
    return f"synthetic_{index:04d}"


def split_of(index: int) -> str:
    """Split of a track by its number only, so that a larger corpus keeps the split of a smaller one."""
    position = index % 20
    return "valid" if position in VALID_POSITIONS else "test" if position in TEST_POSITIONS else "train"


def line_path(folder: Path, index: int) -> Path:
    """Where the manifest line of a track is kept."""
    return folder / "lines" / f"{track_name(index)}.json"


def is_complete(folder: Path, index: int) -> bool:
    """Whether all files of a track exist."""
    path = line_path(folder, index)
    if not path.is_file():
        return False
    # Files of the cache may have been deleted since.
    line = json.loads(path.read_text())
    names = [*(line[name] for name in ("audio", "chords", "beats", "onsets", "sections")), *line.get("versions", ())]
    return all((folder / name).is_file() for name in names)


def make_tracks(folder: Path, recipe: Recipe, indices: Iterable[int]) -> int:
    """Make those of the tracks that do not exist yet.

    Args:
        folder: The corpus.
        recipe: What determines the tracks.
        indices: Their numbers.

    Returns:
        Number of tracks, which are all complete now.
    """
    count = 0
    for index in indices:
        if not is_complete(folder, index):
            make_track(folder, recipe, index)
        count += 1
    return count


def make_track(folder: Path, recipe: Recipe, index: int) -> None:
    """Make one track.

    Args:
        folder: The corpus.
        recipe: What determines the track.
        index: Its number.
    """
    song = compose(recipe.seed, index, recipe.seconds)
    recordings = recorded_versions(
        song, recipe.seed, index, recipe.seconds, recipe.sample_rate, num_versions=recipe.num_versions
    )
    name = track_name(index)
    audio = [f"audio/{name}.wav", *(f"audio/{name}_v{number}.wav" for number in range(1, len(recordings)))]
    for path, (_, waveform) in zip(audio, recordings, strict=True):
        file = io.BytesIO()
        samples = np.rint(waveform * 32767.0).astype(np.int16)  # (N,), below full scale: see `record`
        soundfile.write(file, samples, recipe.sample_rate, format="WAV", subtype="PCM_16")
        write_atomically(folder / path, file.getvalue())
    _written(folder / "chords" / f"{name}.lab", lambda path: write_chords(path, song.chords))
    _written(folder / "beats" / f"{name}.beats", lambda path: write_beats(path, song.beats))
    _written(folder / "onsets" / f"{name}.txt", lambda path: write_onsets(path, song.onsets))
    _written(folder / "sections" / f"{name}.lab", lambda path: write_sections(path, song.sections))
    line: dict[str, Any] = {
        "track_id": name,
        "audio": audio[0],
        "split": split_of(index),
        "tags": tags(recordings[0][0]),
        "chords": f"chords/{name}.lab",
        "beats": f"beats/{name}.beats",
        "onsets": f"onsets/{name}.txt",
        "sections": f"sections/{name}.lab",
        "key": song.key,
        "tempo_bpm": song.tempo_bpm,
        "metre": song.metre,
        "group": name,
        "license": "CC0-1.0 (generated)",
    }
    if recipe.num_versions:
        line["versions"] = audio[1:]
    # Last: it marks the track as complete.
    write_atomically(line_path(folder, index), json.dumps(line) + "\n")


def _written(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temporary path, then rename the file to its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, path)
