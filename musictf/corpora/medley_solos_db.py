"""Medley-solos-DB: three-second clips of one of eight instruments.

Lostanlen and Cella, "Deep convolutional networks on the pitch spiral for musical instrument recognition", ISMIR 2016.

Layout: ``Medley-solos-DB_metadata.csv`` (subset, instrument, instrument_id, song_id, uuid4), in ``annotation`` or in
``root``, and ``audio/Medley-solos-DB_<subset>-<instrument_id>_<uuid4>.wav``.

Conventions: the splits are the official training, validation and test subsets; test clips come from another collection
(solosDB) than the others (MedleyDB). Clips of one song are a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, single_root
from musictf.datasets.layout import index_file
from musictf.datasets.tabular import table_rows
from musictf.errors import InputError

SUBSETS = {"training": "train", "validation": "valid", "test": "test"}
# In folder annotation of mirdata's layout, beside the audio in others.
METADATA = "Medley-solos-DB_metadata.csv"
COLUMNS = ("subset", "instrument", "instrument_id", "song_id", "uuid4")


@dataclass(kw_only=True)
class MedleySolosDB(Dataset):
    """Clips with one ``instrument``; ``root`` is the folder with ``audio`` and the metadata."""

    name: ClassVar[str] = "medley_solos_db"
    citation: ClassVar[str] = "Lostanlen, Cella: Deep convolutional networks on the pitch spiral, ISMIR 2016"
    license: ClassVar[str] = "audio and annotations: CC BY 4.0"
    homepage: ClassVar[str] = (
        "https://zenodo.org/records/3464194: Medley-solos-DB.tar.gz, into audio/, and Medley-solos-DB_metadata.csv"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 21_571, "train": 5_841, "valid": 3_494, "test": 12_236}
    annotations: ClassVar[tuple[str, ...]] = ("instrument",)

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        path = index_file(root, self.name, f"annotation/{METADATA}", METADATA)
        return [_track(root / "audio", row, where) for where, row in table_rows(path, COLUMNS)]


def _track(folder: Path, row: dict[str, str], where: str) -> Track:
    if row["subset"] not in SUBSETS:
        raise InputError(f"{where}: subset {row['subset']!r} is not one of {', '.join(SUBSETS)}")
    name = f"Medley-solos-DB_{row['subset']}-{row['instrument_id']}_{row['uuid4']}.wav"
    return Track(
        track_id=row["uuid4"],  # unique over all subsets
        audio=folder / name,
        split=SUBSETS[row["subset"]],
        group=f"{row['subset']}/{row['song_id']}",
        labels={"instrument": row["instrument"]},
    )
