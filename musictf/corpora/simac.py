"""SIMAC: excerpts of many genres with beats, without downbeats.

Gouyon, "A computational approach to rhythm description", PhD thesis, UPF 2005.

Layout: ``S_1.0/annotations/beats/<track>.beats`` (times) and ``S_1.0/audio/<track>.*``.

Conventions: there is no official split; it is derived from the album, whose name comes before the track number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from musictf.annotations import read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import Collection, annotation_files, annotation_folder

# simac_Amber_01-Foil is track 01 of the album Amber.
ALBUM = r"simac_.+?(?=_\d\d(?!\d))"


@dataclass(kw_only=True)
class SIMAC(Dataset):
    """Excerpts with ``beats``; ``root`` is ``S_1.0`` or the folder that holds it."""

    name: ClassVar[str] = "simac"
    citation: ClassVar[str] = "Gouyon: A computational approach to rhythm description, PhD thesis, UPF 2005"
    license: ClassVar[str] = "annotations: CC BY-NC-SA 4.0; audio: not distributed"
    homepage: ClassVar[str] = (
        "audio is not available for download (ask researchers who have a copy); beats are in beat_this"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 595}
    annotations: ClassVar[tuple[str, ...]] = ("beats",)

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        folder = annotation_folder(root, self.name, "S_1.0/annotations/beats", "annotations/beats")
        # The format depends on the copy.
        files = Collection(folder.parents[1] / "audio")
        return [
            Track(
                track_id=path.stem,
                audio=files.find(path.stem),
                split=derived_split(_album(path.stem)),
                group=_album(path.stem),
                labels={"beats": AnnotationFile(path, read_beats)},
            )
            for path in annotation_files(folder, self.name, "*.beats")
        ]


def _album(name: str) -> str:
    match = re.match(ALBUM, name)
    return match.group() if match else name
