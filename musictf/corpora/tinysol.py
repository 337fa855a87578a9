"""TinySOL: 2,913 single notes of 14 instruments in ordinary playing technique.

Cella, Ghisi, Lostanlen, Lévy, Fineberg and Maresz, "OrchideaSOL: a dataset of extended instrumental techniques for
computer-aided orchestration", ICMC 2020.

Conventions: the five folds are the official ones, balanced in instrument, pitch and dynamics. The fold ``fold`` is the
test split, the next one (cyclic) is ``valid``, the other three are ``train``; results are reported as the mean over the
five. Some notes were made by transposing another one (``R100u`` in the name), which may lie in another fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, single_root
from musictf.datasets.layout import audio_folder, index_file
from musictf.datasets.tabular import table_rows
from musictf.errors import InputError

FOLDS = 5
COLUMNS = ("Path", "Fold", "Family", "Instrument (in full)", "Pitch", "Pitch ID")


@dataclass(kw_only=True)
class TinySOL(Dataset):
    """Notes with their instrument and pitch (``F#1``; ``pitch_id`` is the MIDI number, 60 = C4).

    Attributes:
        root: Folder with ``TinySOL_metadata.csv`` (here or in ``annotation``) and the audio, in ``TinySOL``, ``audio``
            or here: ``Brass/Bass_Tuba/ordinario/BTb-ord-F#1-pp-N-N.wav``.
        fold: The fold for testing, 0 to 4.
    """

    name: ClassVar[str] = "tinysol"
    citation: ClassVar[str] = (
        "C. E. Cella, D. Ghisi, V. Lostanlen, F. Lévy, J. Fineberg, Y. Maresz: OrchideaSOL: a dataset of extended "
        "instrumental techniques for computer-aided orchestration. ICMC 2020"
    )
    license: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://zenodo.org/records/3685367 (TinySOL.tar.gz and TinySOL_metadata.csv)"
    # "instruments" is no count of tracks, and is only printed.
    published: ClassVar[dict[str, int]] = {"tracks": 2913, "instruments": 14}
    annotations: ClassVar[tuple[str, ...]] = ("instrument", "pitch", "pitch_id")

    root: Any = None
    fold: int = 0

    def __post_init__(self) -> None:
        if self.fold not in range(FOLDS):
            raise InputError(f"dataset.fold={self.fold!r} must be a whole number from 0 to {FOLDS - 1}")

    @property
    def label(self) -> str:
        return f"tinysol:fold{self.fold}"

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        path = index_file(root, self.name, "TinySOL_metadata.csv", "annotation/TinySOL_metadata.csv")
        audio = audio_folder(root, "TinySOL", "audio", ".")
        return [self._track(row, where, audio) for where, row in table_rows(path, COLUMNS)]

    def _track(self, row: dict[str, str], where: str, audio: Path) -> Track:
        if row["Fold"] not in map(str, range(FOLDS)) or not row["Pitch ID"].isdecimal():
            raise InputError(f"{where}: expected a fold from 0 to {FOLDS - 1} and a MIDI pitch, found {row['Fold']!r}")
        # Brass/Bass_Tuba/ordinario/BTb-ord-F#1-pp-N-N.wav
        name = PurePosixPath(row["Path"]).stem
        labels = {
            "instrument": row["Instrument (in full)"],
            "family": row["Family"],
            "pitch": row["Pitch"],
            "pitch_id": int(row["Pitch ID"]),
        }
        # Folds are cyclic: the tested one, then the one for validation.
        split = {0: "test", 1: "valid"}.get((int(row["Fold"]) - self.fold) % FOLDS, "train")
        return Track(track_id=name, audio=audio / row["Path"], split=split, group=name, labels=labels)
