"""Candombe: Uruguayan drumming, with beats and downbeats.

Nunes, Rocamora, Jure and Biscainho, "Beat and downbeat tracking based on rhythmic patterns applied to the Uruguayan
candombe drumming", ISMIR 2015.

Layout: ``candombe_annotations/with_bar_number/<track>.csv`` (``time,bar.beat``), and audio with the name of its track
anywhere in ``root``.

Conventions: in ``10.1`` the bar is 10 and the beat 1; it is a text, not a number. Takes of one session, which share
drummers, are a group (``csic.1995_ansina1``); the split is derived from it, so that of eight sessions one is for
testing (5 takes) and one for validation (2). There is no official split.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import BeatRow, Beats, assemble_beats, parse_number
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import Collection, annotation_files, annotation_folder
from musictf.datasets.tabular import columns
from musictf.errors import InputError


@dataclass(kw_only=True)
class Candombe(Dataset):
    """Performances with ``beats``; ``root`` is the folder where both archives were unpacked."""

    name: ClassVar[str] = "candombe"
    citation: ClassVar[str] = "Nunes, Rocamora, Jure, Biscainho: Beat and downbeat tracking ... Candombe, ISMIR 2015"
    license: ClassVar[str] = "Creative Commons, as the Zenodo record states"
    homepage: ClassVar[str] = "https://zenodo.org/records/6533068: candombe_annotations.zip and candombe_audio.zip"
    published: ClassVar[dict[str, int]] = {"tracks": 35}
    annotations: ClassVar[tuple[str, ...]] = ("beats",)

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        folder = annotation_folder(root, self.name, "candombe_annotations/with_bar_number", "with_bar_number")
        files = Collection(root)  # audio may be in any folder below the root
        return [_track(path, files.find(path.stem)) for path in annotation_files(folder, self.name, "*.csv")]


def read_beats(path: Path) -> Beats:
    """Beats with positions of a ``time,bar.beat`` file.

    Raises:
        InputError: a line does not parse, or times do not ascend.
    """
    beats: list[BeatRow] = []
    for where, (time, label) in columns(path, 2, ","):
        match = re.fullmatch(r"\d+\.([1-9]\d*)", label)
        if match is None:
            raise InputError(f"{where}: {label!r} is not bar.beat")
        beats.append((where, parse_number(time, where), int(match[1])))
    return assemble_beats(beats, path)


def _track(path: Path, audio: Path) -> Track:
    # csic.1995_ansina1_02 is the second take of a session.
    session = path.stem.rpartition("_")[0] or path.stem
    labels = {"beats": AnnotationFile(path, read_beats)}
    return Track(track_id=path.stem, audio=audio, split=derived_split(session), group=session, labels=labels)
