"""MTG-Jamendo: 55,000 full tracks under Creative Commons licences, with tags by their authors.

Bogdanov, Won, Tovstogan, Porter and Serra, "The MTG-Jamendo dataset for automatic music tagging", ICML 2019 workshop.

Conventions: the splits are the official ones (five of them, no artist in two parts of one); tags keep their prefix
(``genre---rock``, ``mood/theme---calm``). Every subset is multi-label: a track with one genre has a list of one tag. A
track is named as in the index (``track_0000948``); its group is its artist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, single_root
from musictf.datasets.layout import audio_folder, index_file
from musictf.datasets.tabular import read_text
from musictf.errors import InputError

SUBSETS = ("top50tags", "genre", "instrument", "moodtheme")
FILE_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]

# Usual folders of the two distributed qualities: full at 320 kbit/s, low as .low.mp3.
FOLDERS = {"full": ("audio", "raw_30s/audio"), "low": ("audio-low", "raw_30s/audio-low")}


@dataclass(kw_only=True)
class MTGJamendo(Dataset):
    """Tracks with the tags of one subset, in one of the five official splits.

    Attributes:
        root: Folder with ``data/splits`` of the repository and ``audio/48/948.mp3`` or ``audio-low/48/948.low.mp3``.
        subset: ``top50tags``, ``genre``, ``instrument`` or ``moodtheme``.
        split: One of the five, 0 to 4. Most published results are for 0.
        audio: ``full``, ``low``, or ``auto``: the full audio if its folder exists, else the low one.
    """

    name: ClassVar[str] = "mtg_jamendo"
    citation: ClassVar[str] = (
        "D. Bogdanov, M. Won, P. Tovstogan, A. Porter, X. Serra: The MTG-Jamendo dataset for automatic music tagging. "
        "Machine Learning for Music Discovery Workshop, ICML 2019"
    )
    license: ClassVar[str] = "CC BY-NC-SA 4.0 (metadata); each track its own CC licence (audio_licenses.txt)"
    homepage: ClassVar[str] = (
        "https://github.com/MTG/mtg-jamendo-dataset: clone it for data/splits; its scripts/download/download.py "
        "fetches the audio (--type audio or audio-low) into the folder audio or audio-low of the same root"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 54380}  # of the default subset, top50tags
    annotations: ClassVar[tuple[str, ...]] = ("tags",)

    root: Any = None
    subset: str = "top50tags"
    split: int = 0
    audio: str = "auto"

    def __post_init__(self) -> None:
        if self.subset not in SUBSETS:
            raise InputError(f"dataset.subset={self.subset!r} is unknown: one of {', '.join(SUBSETS)}")
        if self.split not in range(5):
            raise InputError(f"dataset.split={self.split!r} must be a whole number from 0 to 4")
        if self.audio not in ("auto", *FOLDERS):
            raise InputError(f"dataset.audio={self.audio!r} is unknown: one of auto, {', '.join(FOLDERS)}")

    @property
    def label(self) -> str:
        return f"mtg_jamendo:{self.subset}-{self.split}" + ("-low" if self.audio == "low" else "")

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        # One quality for all tracks of a run, full if a copy has both.
        available = [name for name in FOLDERS if any((root / folder).is_dir() for folder in FOLDERS[name])]
        quality = self.audio if self.audio != "auto" else next(iter(available), "full")
        folder, suffix = audio_folder(root, *FOLDERS[quality]), ".low.mp3" if quality == "low" else ".mp3"
        tracks = []
        for file_split, split in FILE_SPLITS.items():
            name = f"splits/split-{self.split}/autotagging_{self.subset}-{file_split}.tsv"
            path = index_file(root, self.name, f"data/{name}", name)
            for fields in _rows(path):
                # PATH is 48/948.mp3 in either quality.
                audio = folder / (fields[3].removesuffix(".mp3") + suffix)
                labels = {"tags": fields[5:], "artist": fields[1], "album": fields[2]}
                tracks.append(Track(track_id=fields[0], audio=audio, split=split, group=fields[1], labels=labels))
        return tracks


def _rows(path: Path) -> list[list[str]]:
    """Fields of each track, the sixth and all later ones being its tags."""
    # A row has one column for each tag, so csv.DictReader would put all tags after the first under one key.
    header, *lines = read_text(path).rstrip("\n").split("\n")
    if header.rstrip("\r").split("\t") != COLUMNS:
        raise InputError(f"{path}:1: expected the columns {' '.join(COLUMNS)}, found {header[:80]!r}")
    rows = [line.rstrip("\r").split("\t") for line in lines]
    for number, fields in enumerate(rows, start=2):
        if len(fields) < len(COLUMNS) or not all(fields):
            raise InputError(f"{path}:{number}: expected {len(COLUMNS)} or more columns, all filled")
    return rows
