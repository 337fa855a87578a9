"""GiantSteps: excerpts of 2 min of electronic dance music, each with its key.

Knees et al., "Two data sets for tempo estimation and key detection in electronic dance music annotated from user
corrections", ISMIR 2015; GiantSteps+ (revised): Faraldo, PhD thesis, UPF 2017. Training set: GiantSteps-MTG-keys.

Conventions: a key is a text, tonic and mode, the tonic in sharps or flats as annotated (``D major``, ``Bb minor``).
With ``train_root`` all of GiantSteps is the test split, and the tracks of GiantSteps-MTG-keys with one key and
confidence 2 are ``train`` and ``valid``, 80 to 20 by a hash of the artists (the rule of Korzeniowski and Widmer,
ISMIR 2018); the others have no single key and are not used. Without it GiantSteps itself is split by the hash.
Artists who share a track are one group; the GitHub copy of GiantSteps names no artists, so there a track is a group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import index_file
from musictf.datasets.splits import connected_groups
from musictf.datasets.tabular import read_text, table_rows
from musictf.errors import InputError

ONE_KEY = re.compile(r"([A-G][b#]?) (major|minor)", re.IGNORECASE)
# Such as: 10089 Jason Sparks - Close My Eyes feat. J. Little (Original Mix)
NUMBER_AND_ARTISTS = re.compile(r"\d+ (?P<artists>.+?) - ")
CERTAIN = "2"  # the highest confidence, column C


@dataclass(kw_only=True)
class GiantStepsKey(Dataset):
    """Tracks with their key.

    Attributes:
        root: Folder with ``keys_gs+`` and ``audio`` (GiantSteps+, 600 tracks), or the GitHub repository with
            ``annotations/key`` and ``audio`` (604 tracks, the test set of papers). The label states which.
        train_root: Repository of GiantSteps-MTG-keys with ``annotations/annotations.txt`` and ``audio``.
    """

    name: ClassVar[str] = "giantsteps_key"
    citation: ClassVar[str] = (
        "P. Knees, A. Faraldo, P. Herrera, R. Vogl, S. Böck, F. Hörschläger, M. Le Goff: Two data sets for tempo "
        "estimation and key detection in electronic dance music annotated from user corrections. ISMIR 2015"
    )
    license: ClassVar[str] = "CC BY-SA 4.0 (annotations of GiantSteps+); audio: previews of Beatport, for research"
    homepage: ClassVar[str] = (
        "GiantSteps+: https://zenodo.org/records/1095691 (audio.zip, keys.zip); GiantSteps: "
        "https://github.com/GiantSteps/giantsteps-key-dataset and its audio_dl.sh; training set: "
        "https://github.com/GiantSteps/giantsteps-mtg-key-dataset, audio at "
        "https://www.cp.jku.at/datasets/giantsteps/mtg_key_backup"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 604, "giantsteps+": 600, "mtg": 1486}
    annotations: ClassVar[tuple[str, ...]] = ("key",)

    root: Any = None
    train_root: str | None = None

    @property
    def label(self) -> str:
        plus = "+" if _is_plus(single_root(self.root, self.name)) else ""
        return f"giantsteps{plus}:mtg" if self.train_root else f"giantsteps{plus}:derived"

    def read_tracks(self) -> list[Track]:
        tracks = _giantsteps(single_root(self.root, self.name), is_test=self.train_root is not None)
        if self.train_root is None:
            return tracks
        folder = Path(self.train_root).expanduser().resolve()
        if not folder.is_dir():
            raise InputError(f"dataset.train_root: {folder} is not a folder")
        return _mtg_keys(folder) + tracks


def read_key(path: Path) -> str | None:
    """Key in the first field of a file, as ``D major``; None if that is no single major or minor key.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    text = read_text(path).strip()
    if not text:
        raise InputError(f"{path}: holds no key")
    # Other fields follow a tab or a line break.
    return _one_key(text.split("\t")[0].split("\n")[0])


def _one_key(text: str) -> str | None:
    """``d# Minor`` as ``D# minor``; None for ``-``, ``C minor / F minor`` and the like."""
    match = ONE_KEY.fullmatch(text.strip())
    return f"{match[1].capitalize()} {match[2].lower()}" if match else None


def _is_plus(root: Path) -> bool:
    return (root / "keys_gs+").is_dir()


def _giantsteps(root: Path, is_test: bool) -> list[Track]:
    """Tracks of GiantSteps or GiantSteps+: all for testing, or in derived splits."""
    folder, suffix = (root / "keys_gs+", ".txt") if _is_plus(root) else (root / "annotations/key", ".key")
    paths = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
    if not paths:
        raise InputError(
            f"{root} holds neither keys_gs+/*.txt nor annotations/key/*.key; musictf data prepare giantsteps_key ROOT "
            "lists what a copy lacks"
        )
    # Artists in lower case; a file name without artists is a group of its own.
    matches = [(path.stem, NUMBER_AND_ARTISTS.match(path.stem)) for path in paths]
    groups = connected_groups([match["artists"].lower().split(", ") if match else [stem] for stem, match in matches])
    return [
        Track(
            track_id=path.stem,
            audio=root / "audio" / f"{path.stem}.mp3",
            split="test" if is_test else derived_split(group),
            group=group,
            labels={"key": AnnotationFile(path, read_key)},
        )
        for path, group in zip(paths, groups, strict=True)
    ]


def _mtg_keys(root: Path) -> list[Track]:
    """Tracks of GiantSteps-MTG-keys that have one key with confidence 2."""
    path = index_file(root, GiantStepsKey.name, "annotations/annotations.txt")
    beatport = table_rows(
        index_file(root, GiantStepsKey.name, "annotations/beatport_metadata.txt"), ["ID", "ARTIST"], delimiter="\t"
    )
    artists = {row["ID"]: [name.strip().lower() for name in row["ARTIST"].split(",")] for _, row in beatport}
    rows = [row for _, row in table_rows(path, ["ID", "MANUAL KEY", "C"], delimiter="\t")]
    # Grouped before any track is left out: a track without a single key may still connect two artists.
    groups = connected_groups([artists.get(row["ID"], [f"mtg {row['ID']}"]) for row in rows])
    tracks = []
    for row, group in zip(rows, groups, strict=True):
        key = _one_key(row["MANUAL KEY"])
        if key is None or row["C"].strip() != CERTAIN:
            continue
        name = f"{row['ID']}.LOFI"
        # Both derived test and valid are validation here: GiantSteps itself is the test split.
        split = "train" if derived_split(group) == "train" else "valid"
        tracks.append(
            Track(
                track_id=f"mtg/{name}", audio=root / "audio" / f"{name}.mp3", split=split, group=group,
                labels={"key": key},
            )
        )  # fmt: skip
    return tracks
