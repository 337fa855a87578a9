"""BRID: Brazilian percussion, solo and in groups, with beats and downbeats of the groups.

Maia, de Tomaz Jr., Fuentes, Rocamora, Biscainho, Costa and Cohen, "BRID", 2018.

Layout: ``BRID_1.0/Annotations/beats/<track>.beats`` (time, position; the folder may be ``annotations``), and audio with
the name of its track anywhere in ``BRID_1.0``.

Conventions: tracks are those with beats, the mixtures; solos of one instrument have none and are not listed. Bars have
two beats. There is no official split, and the players are not named: the split is derived from the track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from musictf.annotations import read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import Collection, annotation_files, annotation_folder


@dataclass(kw_only=True)
class BRID(Dataset):
    """Mixtures with ``beats``; ``root`` is ``BRID_1.0`` or the folder that holds it."""

    name: ClassVar[str] = "brid"
    citation: ClassVar[str] = "Maia, de Tomaz Jr., Fuentes, Rocamora, Biscainho, Costa, Cohen: BRID, CBMI 2018"
    license: ClassVar[str] = "audio and annotations: CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = "http://www.smt.ufrj.br/~starel/datasets/brid.html"
    published: ClassVar[dict[str, int]] = {"tracks": 93}
    annotations: ClassVar[tuple[str, ...]] = ("beats",)

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        # Both spellings occur.
        names = (f"{folder}{name}/beats" for folder in ("BRID_1.0/", "") for name in ("Annotations", "annotations"))
        beats = annotation_folder(root, self.name, *names)
        # Folders of the audio differ between copies; names of tracks are unique.
        files = Collection(beats.parents[1])
        return [
            Track(
                track_id=path.stem,
                audio=files.find(path.stem),
                split=derived_split(path.stem),
                group=path.stem,
                labels={"beats": AnnotationFile(path, read_beats)},
            )
            for path in annotation_files(beats, self.name, "*.beats")
        ]
