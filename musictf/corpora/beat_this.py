"""Beat This!: the beats and downbeats of sixteen corpora that its model was trained on, in one layout.

Foscarin, Schlüter and Widmer, "Beat this! Accurate beat tracking without DBN postprocessing", ISMIR 2024.

Layout: a checkout has, for each corpus, ``annotations/beats/*.beats`` (time, position in the bar), ``info.json``
(``has_downbeats``), ``single.split`` (train or val) and ``8-folds.split`` (0 to 7). It contains no audio: audio is any
file below ``audio_root`` (``audio_root/CORPUS`` if that is a folder) with the name of a track, with or without the
name of the corpus in front.

Conventions: GTZAN has no split file, because it is the test set of the paper; with it, the other corpora are split by
``single.split``. Without GTZAN, one of the eight folds is for testing, the next one for validation (the authors have
no validation tracks there) and six are for training. Official folds are kept even if they separate tracks of a group,
such as the players of GuitarSet. Corpora without downbeats (SMC, SIMAC) have beats without positions.
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
OFFICIAL = {"train": "train", "val": "valid"}  # values of single.split

# The part of a track's name that names its group; in other corpora a track is its own group.
GROUPS = {
    "asap": r".+(?=_[^_]+$)",  # a work
    "beatles": r"beatles_\d\d",  # an album
    "candombe": r".+(?=_\d+$)",  # a session
    "groove_midi": r"drummer\d+",
    "guitarset": r"\d\d_[^_]+",  # a player and lead sheet
    "simac": r"simac_.+?(?=_\d\d(?!\d))",  # an album
}


@dataclass(kw_only=True)
class BeatThis(Dataset):
    """One corpus of the annotations, or several joined (``dataset.corpus=[ballroom,hjdb,gtzan]``).

    Attributes:
        root: The checkout of beat_this_annotations.
        audio_root: Your audio; ``root/audio`` by default.
        corpus: Name of a corpus, or a list of them.
        fold: The fold for testing, if GTZAN is not among the corpora; 0 by default.
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
        corpora = self._corpora()
        if "gtzan" in corpora:
            if self.fold is not None:
                raise InputError("dataset.fold: with gtzan among the corpora its tracks are tested, and no fold")
            return [track for corpus in corpora for track in _tracks(root / corpus, corpus, audio, None)]
        fold = 0 if self.fold is None else self.fold
        if not 0 <= fold < FOLDS:
            raise InputError(f"dataset.fold={fold} is not one of 0 to {FOLDS - 1}")
        return [track for corpus in corpora for track in _tracks(root / corpus, corpus, audio, fold)]

    @property
    def label(self) -> str:
        return f"{self.name}-{'+'.join(self._corpora())}"

    def _corpora(self) -> list[str]:
        names = [str(name) for name in (self.corpus if isinstance(self.corpus, list) else [self.corpus])]
        unknown = [name for name in names if name not in CORPORA]
        if unknown or not names:
            raise InputError(f"dataset.corpus={','.join(unknown)} is unknown: one or more of {', '.join(CORPORA)}")
        return sorted(set(names))


def read_times(path: Path) -> Beats:
    """Beat times in seconds of a corpus without downbeats; a second column is ignored."""
    return Beats(read_beats(path).times)


def _tracks(folder: Path, corpus: str, audio: Path, fold: int | None) -> list[Track]:
    """Tracks of one corpus; without a fold the split is that of the paper."""
    info = index_file(folder, BeatThis.name, "info.json")
    has_downbeats = read_object(info).get("has_downbeats")
    if not isinstance(has_downbeats, bool):
        raise InputError(f"{info}: has_downbeats must be true or false, found {has_downbeats!r}")
    beats = annotation_folder(folder, BeatThis.name, "annotations/beats")
    annotated = [path.stem for path in annotation_files(beats, BeatThis.name, "*.beats")]
    splits = dict.fromkeys(annotated, "test") if corpus == "gtzan" else _splits(folder, fold)
    missing = sorted(set(annotated) - splits.keys())
    if missing:
        raise InputError(
            f"{folder}: {missing[0]}.beats is in no split; the split files must list every annotated track"
        )
    files = Collection(audio / corpus if (audio / corpus).is_dir() else audio)
    tracks = []
    for name in sorted(splits):
        group = re.match(GROUPS.get(corpus, r".+"), name)
        # Audio as here, or as the corpus itself names it: gtzan_blues_00000 here is blues.00000 there.
        bare = name.removeprefix(f"{corpus}_")
        file_names = (name, bare, bare.replace("_", ".")) if corpus == "gtzan" else (name, bare)
        tracks.append(
            Track(
                track_id=f"{corpus}/{name}",
                audio=files.find(*file_names),
                split=splits[name],
                group=f"{corpus}/{group.group() if group else name}",
                labels={"beats": AnnotationFile(beats / f"{name}.beats", read_beats if has_downbeats else read_times)},
            )
        )
    return tracks


def _splits(folder: Path, fold: int | None) -> dict[str, str]:
    """Split of each track, by the official split or, given the tested fold, by the eight folds."""
    path = index_file(folder, BeatThis.name, "single.split" if fold is None else "8-folds.split")
    splits: dict[str, str] = {}
    for where, (name, value) in columns(path, 2, "\t"):
        if value not in (OFFICIAL if fold is None else {str(number) for number in range(FOLDS)}):
            raise InputError(f"{where}: {value!r} is neither train, val nor a fold from 0 to {FOLDS - 1}")
        if fold is None:
            splits[name] = OFFICIAL[value]
        else:  # the tested fold, the next one for validation, the others
            splits[name] = {0: "test", 1: "valid"}.get((int(value) - fold) % FOLDS, "train")
    return splits
