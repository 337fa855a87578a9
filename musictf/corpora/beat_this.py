"""The annotations that Beat This! was trained on: beats and downbeats of sixteen corpora in one layout.

A checkout holds, for each corpus, ``annotations/beats/*.beats`` (time, position in the bar), ``info.json``
(``has_downbeats``), ``single.split`` (train or val) and ``8-folds.split`` (0 to 7). There is no audio in it: every file
below ``audio_root`` (``audio_root/CORPUS`` where that is a folder) named as a track is taken, with or without the
corpus in front of its name.

Conventions: GTZAN has no split file, because it is the test set of the paper; the others are then split by
``single.split``. Without GTZAN, one of the eight folds is tested, the next one is for validation (the authors have no
validation tracks there) and six are for training. Official folds are kept where they part what belongs together, as
the players of GuitarSet. Corpora without downbeats (SMC, SIMAC) have beats without positions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import Beats, read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, single_root
from musictf.datasets.layout import Collection, annotation_files, annotation_folder, audio_root, index_file
from musictf.datasets.tabular import columns, read_object
from musictf.errors import InputError

CORPORA = (
    *("asap", "ballroom", "beatles", "candombe", "filosax", "groove_midi", "gtzan", "guitarset", "hainsworth"),
    *("harmonix", "hjdb", "jaah", "rwc", "simac", "smc", "tapcorrect"),
)
FOLDS = 8
OFFICIAL = {"train": "train", "val": "valid"}

# What the name of a track tells about what it shares with others: a work, a drummer, a player, an album, a session.
GROUPS = {
    "asap": r".+(?=_[^_]+$)",
    "beatles": r"beatles_\d\d",
    "candombe": r".+(?=_\d+$)",
    "groove_midi": r"drummer\d+",
    "guitarset": r"\d\d_[^_]+",
    "simac": r"simac_.+?(?=_\d\d(?!\d))",
}


@dataclass(kw_only=True)
class BeatThis(Dataset):
    """One corpus of the annotations, or several joined (``dataset.corpus=[ballroom,hjdb,gtzan]``).

    Attributes:
        root: The checkout of beat_this_annotations.
        audio_root: The user's audio; ``root/audio`` where it is not given.
        corpus: Which corpora.
        fold: The tested fold where GTZAN is not among the corpora; 0 where it is not given.
    """

    name: ClassVar[str] = "beat_this"
    citation: ClassVar[str] = "Foscarin, Schlueter, Widmer: Beat This!, ISMIR 2024; and the authors of each corpus"
    license: ClassVar[str] = "annotations: MIT (the repository); audio: as each corpus states"
    homepage: ClassVar[str] = "git clone https://github.com/CPJKU/beat_this_annotations; audio from each corpus"
    annotations: ClassVar[tuple[str, ...]] = ("beats",)

    root: Any = None
    audio_root: Any = None
    corpus: Any = "ballroom"
    fold: int | None = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        audio = audio_root(self.audio_root, root / "audio")
        fold = self._fold()
        return [track for corpus in self._corpora() for track in _tracks(root / corpus, corpus, audio, fold)]

    @property
    def label(self) -> str:
        return f"{self.name}-{'+'.join(self._corpora())}"

    def _corpora(self) -> list[str]:
        names = [str(name) for name in (self.corpus if isinstance(self.corpus, list) else [self.corpus])]
        unknown = [name for name in names if name not in CORPORA]
        if unknown or not names:
            raise InputError(f"dataset.corpus={','.join(unknown)} is unknown: one or more of {', '.join(CORPORA)}")
        return sorted(set(names))

    def _fold(self) -> int | None:
        if "gtzan" in self._corpora():
            if self.fold is not None:
                raise InputError("dataset.fold: with gtzan among the corpora its tracks are tested, and no fold")
            return None
        fold = 0 if self.fold is None else self.fold
        if not 0 <= fold < FOLDS:
            raise InputError(f"dataset.fold={fold} is not one of 0 to {FOLDS - 1}")
        return fold


def read_times(path: Path) -> Beats:
    """Beats of a corpus without downbeats, whatever stands in a second column."""
    return Beats(read_beats(path).times)


def _tracks(folder: Path, corpus: str, audio: Path, fold: int | None) -> list[Track]:
    reader = read_beats if _has_downbeats(folder) else read_times
    beats = annotation_folder(folder, BeatThis.name, "annotations/beats")
    annotated = [path.stem for path in annotation_files(beats, BeatThis.name, "*.beats")]
    splits = dict.fromkeys(annotated, "test") if corpus == "gtzan" else _splits(folder, fold)
    lost = sorted(set(annotated) - splits.keys())
    if lost:
        raise InputError(f"{folder}: {lost[0]}.beats is in no split; the split files must list every annotated track")
    files = Collection(audio / corpus if (audio / corpus).is_dir() else audio)
    return [
        Track(
            track_id=f"{corpus}/{name}",
            audio=files.find(*_file_names(name, corpus)),
            split=splits[name],
            group=_group(name, corpus),
            labels={"beats": AnnotationFile(beats / f"{name}.beats", reader)},
        )
        for name in sorted(splits)
    ]


def _has_downbeats(folder: Path) -> bool:
    path = index_file(folder, BeatThis.name, "info.json")
    value = read_object(path).get("has_downbeats")
    if not isinstance(value, bool):
        raise InputError(f"{path}: has_downbeats must be true or false, found {value!r}")
    return value


def _splits(folder: Path, fold: int | None) -> dict[str, str]:
    path = index_file(folder, BeatThis.name, "single.split" if fold is None else "8-folds.split")
    splits: dict[str, str] = {}
    for where, (name, value) in columns(path, 2, "\t"):
        if value not in (OFFICIAL if fold is None else {str(number) for number in range(FOLDS)}):
            raise InputError(f"{where}: {value!r} is neither train, val nor a fold from 0 to {FOLDS - 1}")
        splits[name] = OFFICIAL[value] if fold is None else _of_fold((int(value) - fold) % FOLDS)
    return splits


def _of_fold(distance: int) -> str:
    return "test" if distance == 0 else "valid" if distance == 1 else "train"


def _file_names(name: str, corpus: str) -> tuple[str, ...]:
    bare = name.removeprefix(f"{corpus}_")
    return (name, bare, bare.replace("_", ".")) if corpus == "gtzan" else (name, bare)


def _group(name: str, corpus: str) -> str:
    found = re.match(GROUPS.get(corpus, r".+"), name)
    return f"{corpus}/{found.group() if found else name}"
