"""The Harmonix Set: beats and downbeats of Western pop.

Nieto, McCallum, Davies, Robertson, Stark and Egozy, "The Harmonix Set: beats, downbeats, and functional segment
annotations of Western popular music", ISMIR 2019.

Layout: ``dataset/beats_and_downbeats/<track>.txt`` (time, beat in the bar, bar) and ``dataset/metadata.csv`` of a
checkout.

Conventions: no audio is distributed. Audio is any file below ``audio_root`` with the name of a track; recordings from
other sources (the authors list videos) start up to seconds earlier or later than the annotated ones: align them first,
as the authors describe. There is no official split: it is derived from the artist. Bars have any number of beats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import parse_number, read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import Collection, annotation_files, annotation_folder, audio_root, index_file
from musictf.datasets.tabular import table_rows


@dataclass(kw_only=True)
class Harmonix(Dataset):
    """Songs with ``beats``, ``tempo``, ``genre`` and ``artist``.

    Attributes:
        root: The checkout, or its folder ``dataset``.
        audio_root: Your audio; ``root/audio`` by default.
    """

    name: ClassVar[str] = "harmonix"
    citation: ClassVar[str] = "Nieto, McCallum, Davies, Robertson, Stark, Egozy: The Harmonix Set, ISMIR 2019"
    license: ClassVar[str] = "annotations: MIT; audio: not distributed"
    homepage: ClassVar[str] = "git clone https://github.com/urinieto/harmonixset; audio from the user's own collection"
    published: ClassVar[dict[str, int]] = {"tracks": 912}
    annotations: ClassVar[tuple[str, ...]] = ("beats", "tempo", "genre", "artist")

    root: Any = None
    audio_root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        beats = annotation_folder(root, self.name, "dataset/beats_and_downbeats", "beats_and_downbeats")
        metadata = index_file(beats.parent, self.name, "metadata.csv")
        # File is the name of a track: 0001_12step.
        songs = {row["File"]: row for _, row in table_rows(metadata, ("File", "Artist", "BPM", "Genre"))}
        files = Collection(audio_root(self.audio_root, root / "audio"))
        paths = annotation_files(beats, self.name, "*.txt")
        return [_track(path, files.find(path.stem), songs.get(path.stem, {}), metadata) for path in paths]


def _track(path: Path, audio: Path, song: Mapping[str, str], metadata: Path) -> Track:
    labels: dict[str, Any] = {"beats": AnnotationFile(path, read_beats)}
    # Empty fields are unknown.
    labels |= {name.lower(): song[name] for name in ("Artist", "Genre") if song.get(name)}
    if song.get("BPM"):  # beats per minute
        labels["tempo"] = parse_number(song["BPM"], f"{metadata}, {path.stem}")
    group = song.get("Artist") or path.stem
    return Track(track_id=path.stem, audio=audio, split=derived_split(group), group=group, labels=labels)
