"""SMC (MIREX): 217 excerpts of 40 s with beats, 198 of them selected because beat trackers disagree on them.

Holzapfel, Davies, Zapata, Oliveira and Gouyon, "Selective sampling for beat tracking evaluation", IEEE TASLP 20(9),
2012.

Conventions: beats have no positions in the bar, so downbeats cannot be scored. Annotations are those of 5 August 2014:
the older ones have last beats after the end of the audio in excerpts 056, 137, 153, 203 and 257. The parts of a file
name after the number (other metrical readings, the annotator) are not to be used, according to the README. Numbers run
to 289, not consecutively; from 271 on the excerpts are easy. Pieces and performers are not named: each excerpt is a
group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from musictf.annotations import read_beats
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder, audio_folder
from musictf.errors import InputError

FOLDER = "SMC_MIREX_Annotations_05_08_2014"  # older annotations have another date


@dataclass(kw_only=True)
class SMC(Dataset):
    """Excerpts with beats, mostly difficult. ``root`` is the unpacked ``SMC_MIREX``, or the folder that contains it."""

    name: ClassVar[str] = "smc"
    annotations: ClassVar[tuple[str, ...]] = ("beats",)
    citation: ClassVar[str] = (
        "A. Holzapfel, M. E. P. Davies, J. R. Zapata, J. L. Oliveira, F. Gouyon: Selective sampling for beat tracking "
        "evaluation. IEEE TASLP 20(9), 2012"
    )
    license: ClassVar[str] = "not stated; excerpts of commercial recordings, for research"
    homepage: ClassVar[str] = (
        "https://joserzapata.github.io/publication/selective-sampling-beat-tracking links SMC_MIREX.zip; "
        "the host smc.inesctec.pt is often down"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 217}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        folder = annotation_folder(root, self.name, FOLDER, f"SMC_MIREX/{FOLDER}")
        audio = audio_folder(folder.parent, "SMC_MIREX_Audio")
        tracks: dict[str, Track] = {}
        for path in annotation_files(folder, self.name, "SMC_*.txt"):
            # A second file of an excerpt would be another annotator or metrical level.
            match = re.match(r"SMC_\d{3}(?=_)", path.name)
            if match is None or match[0] in tracks:
                raise InputError(f"{path}: expected one file SMC_<number>_<reading>_<annotator>.txt for each excerpt")
            name = match[0]
            labels = {"beats": AnnotationFile(path, read_beats)}
            tracks[name] = Track(
                track_id=name, audio=audio / f"{name}.wav", split=derived_split(name), group=name, labels=labels
            )
        return list(tracks.values())
