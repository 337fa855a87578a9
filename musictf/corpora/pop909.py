"""POP909: piano arrangements of Chinese pop songs (MIDI), aligned with the original recordings.

Wang, Chen, Jiang, Zhang, Xu, Dai, Gu and Xia, "POP909: a pop-song dataset for music arrangement generation",
ISMIR 2020.

Layout: ``POP909/<song>/<song>.mid``, ``beat_audio.txt`` (time, position), ``beat_midi.txt`` (time, start of a half bar,
start of a bar), ``chord_audio.txt`` and ``key_audio.txt`` (start, end, label).

Conventions: no audio is distributed. Audio is any file below ``audio_root`` with the name of a song (``001.wav``): the
original recording, or a rendering of ``<song>.mid`` from its first tick by any synthesiser; both have the same times.
Beats, chords and keys were estimated by algorithms from the original audio, only tempo curves are by hand: usable for
training, not as the reference of a test. ``dataset.beats=midi`` takes the beats of the arrangement instead. The key is
the one with the longest total duration. Splits are derived from the song: artists are in a spreadsheet, which is not
read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import Beats, assemble_beats, longest_key, parse_number, read_beats, read_chords
from musictf.datasets.bar_positions import positions_of
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import Collection, audio_folder, audio_root, incomplete_copy
from musictf.datasets.tabular import columns
from musictf.errors import InputError


@dataclass(kw_only=True)
class POP909(Dataset):
    """Songs with ``beats``, ``chords`` and ``key``.

    Attributes:
        root: The checkout, or its folder ``POP909``.
        audio_root: Recordings or renderings; ``root/audio`` by default.
        beats: ``audio`` or ``midi``.
    """

    name: ClassVar[str] = "pop909"
    citation: ClassVar[str] = "Wang, Chen, Jiang, Zhang, Xu, Dai, Gu, Xia: POP909, ISMIR 2020"
    license: ClassVar[str] = "MIDI and annotations: MIT; audio: not distributed"
    homepage: ClassVar[str] = "git clone https://github.com/music-x-lab/POP909-Dataset; audio rendered from its MIDI"
    published: ClassVar[dict[str, int]] = {"tracks": 909}
    annotations: ClassVar[tuple[str, ...]] = ("beats", "chords", "key")

    root: Any = None
    audio_root: Any = None
    beats: str = "audio"

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        if self.beats not in BEAT_READERS:
            raise InputError(f"dataset.beats={self.beats} is not one of {', '.join(BEAT_READERS)}")
        # The root may be the checkout or its folder POP909.
        songs = audio_folder(root, "POP909", ".")
        folders = sorted(folder for folder in songs.glob("[0-9][0-9][0-9]") if folder.is_dir())
        if not folders:
            raise incomplete_copy(songs, self.name, "no song folder (001, 002, ...)")
        files = Collection(audio_root(self.audio_root, root / "audio"))
        return [self._track(folder, files.find(folder.name)) for folder in folders]

    def _track(self, folder: Path, audio: Path) -> Track:
        labels = {
            "beats": AnnotationFile(folder / f"beat_{self.beats}.txt", BEAT_READERS[self.beats]),
            "chords": AnnotationFile(folder / "chord_audio.txt", read_chords),
            "key": AnnotationFile(folder / "key_audio.txt", read_key),
        }
        song = f"pop909/{folder.name}"  # 001 may be a group of other corpora too
        return Track(track_id=folder.name, audio=audio, split=derived_split(song), group=song, labels=labels)


def read_midi_beats(path: Path) -> Beats:
    """Beats of the arrangement: the third column marks those that start a bar.

    Raises:
        InputError: a line does not parse.
    """
    rows = [(where, time, bar) for where, (time, _, bar) in columns(path, 3)]
    positions = positions_of([parse_number(bar, where) == 1 for where, _, bar in rows])  # written 1.0
    beats = zip(rows, positions)
    return assemble_beats(((where, parse_number(time, where), position) for (where, time, _), position in beats), path)


# By the value of dataset.beats; the audio's beats have positions already.
BEAT_READERS = {"audio": read_beats, "midi": read_midi_beats}


def read_key(path: Path) -> str | None:
    """The key with the longest total duration.

    Raises:
        InputError: a line does not parse.
    """
    rows = list(columns(path, 3))
    intervals = [(parse_number(start, where), parse_number(end, where)) for where, (start, end, _) in rows]
    return longest_key(intervals, [label for _, (_, _, label) in rows])
