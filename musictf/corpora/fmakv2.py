"""FMAKv2: keys of 5,489 tracks of the Free Music Archive, in 17 genres.

Wong and Hernandez, "FMAK: a dataset of key and mode annotations for the Free Music Archive", ISMIR 2023 late-breaking;
version 2 (some 200 keys corrected): Kong et al., "STONE: self-supervised tonality estimator", ISMIR 2024.

Conventions: ``fmakv2.csv`` has the columns ``key_and_mode`` (``F# Major``, ``A minor``), ``track_id`` (no leading
zeros) and ``spotify_uri``; keys are written ``F# major``. Audio is that of FMA: ``fma_full/000/000010.mp3`` (whole
tracks), ``fma_large`` (30 s of each) or, as in the archives of FMAK, ``000/000010.mp3``. There is no official split.
Columns and audio layout are those of public readers of the file; we had no copy of the file itself.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, derived_split, single_root
from musictf.datasets.layout import audio_folder, index_file
from musictf.datasets.tabular import read_text, table_rows
from musictf.errors import InputError

KEY = re.compile(r"([A-G][b#]?) (major|minor)", re.IGNORECASE)
FMA_SPLITS = {"training": "train", "validation": "valid", "test": "test"}


@dataclass(kw_only=True)
class FMAKv2(Dataset):
    """Tracks with their key.

    Attributes:
        root: Folder with ``fmakv2.csv`` and the audio of FMA.
        split: ``derived``: by a hash of the track, so that an artist may be in two splits; ``fma``: the split of FMA,
            where no artist is in two splits, which needs ``fma_metadata/tracks.csv`` in the root.
    """

    name: ClassVar[str] = "fmakv2"
    citation: ClassVar[str] = (
        "Y. Kong, V. Lostanlen, G. Meseguer-Brocal, S. Wong, M. Lagrange, R. Hennequin: STONE: self-supervised "
        "tonality estimator. ISMIR 2024; S. Wong, G. Hernandez: FMAK. ISMIR 2023 late-breaking"
    )
    license: ClassVar[str] = "CC BY 4.0 (annotations); each track its own licence (FMA)"
    homepage: ClassVar[str] = (
        "https://zenodo.org/records/12759100 (fmakv2.csv); audio: https://zenodo.org/records/10719860 (000-019.zip and "
        "so on), or fma_full.zip or fma_large.zip of https://github.com/mdeff/fma"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 5489}
    annotations: ClassVar[tuple[str, ...]] = ("key",)

    root: Any = None
    split: str = "derived"

    def __post_init__(self) -> None:
        if self.split not in ("derived", "fma"):
            raise InputError(f"dataset.split={self.split!r} is unknown: one of derived, fma")

    @property
    def label(self) -> str:
        return f"fmakv2:{self.split}"

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        # The second is the name under which mirdata saves it.
        path = index_file(root, self.name, "fmakv2.csv", "fmakv2_metadata.csv")
        audio = audio_folder(root, "fma_full", "fma_large", ".")
        keys: dict[int, str] = {}
        for where, row in table_rows(path, ["track_id", "key_and_mode"]):
            match = KEY.fullmatch(row["key_and_mode"].strip())
            if not match or not row["track_id"].isdecimal():
                raise InputError(
                    f"{where}: expected a key such as 'F# Major' and a track_id, found {list(row.values())!r}"
                )
            keys[int(row["track_id"])] = f"{match[1].capitalize()} {match[2].lower()}"
        known = _read_fma(index_file(root, self.name, "fma_metadata/tracks.csv")) if self.split == "fma" else {}
        tracks = []
        for number, key in sorted(keys.items()):
            name = f"{number:06d}"  # FMA's files and folders have leading zeros
            if self.split == "fma" and number not in known:
                raise InputError(f"{root / 'fma_metadata/tracks.csv'}: has no track {number}, which {path.name} lists")
            group, split = known.get(number, (name, derived_split(name)))
            labels = {"key": key} | ({"artist": group} if number in known else {})
            file = audio / name[:3] / f"{name}.mp3"
            tracks.append(Track(track_id=name, audio=file, split=split, group=group, labels=labels))
        return tracks


def _read_fma(path: Path) -> dict[int, tuple[str, str]]:
    """Artist and split of each track of FMA."""
    # The table has two lines of column names, and a third with the name of the index.
    lines = csv.reader(io.StringIO(read_text(path), newline=""))
    columns = list(zip(next(lines, []), next(lines, [])))
    next(lines, None)
    try:
        artist, split = columns.index(("artist", "id")), columns.index(("set", "split"))
        # An artist is a number too: the text keeps it apart from the name of a track.
        return {int(row[0]): (f"artist {row[artist]}", FMA_SPLITS[row[split]]) for row in lines if row}
    except (ValueError, IndexError, KeyError):
        raise InputError(f"{path}: not FMA's table of tracks (artist id and set split of each track)") from None
