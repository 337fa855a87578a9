"""Hainsworth: 222 excerpts of a minute in six styles, with beats and downbeats, many of them difficult.

Hainsworth and Macleod, "Particle filtering applied to musical tempo tracking", EURASIP Journal on Applied Signal
Processing 2004(15); annotations revised by Böck and others in 2014.

Layout: that of mirdata, ``H_1.0/audio/hains001.flac`` and ``H_1.0/annotations/beats``.

Conventions: beats are counted from 1 in the bar. Numbers of excerpts are not consecutive. Style is not part of the
annotations, and artists are not named: each excerpt is a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from musictf.annotations import read_beats, read_tempo
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder, audio_file


@dataclass(kw_only=True)
class Hainsworth(Dataset):
    """Excerpts with beats and downbeats. ``root`` is the folder that holds ``H_1.0``, or ``H_1.0`` itself."""

    name: ClassVar[str] = "hainsworth"
    annotations: ClassVar[tuple[str, ...]] = ("beats",)
    citation: ClassVar[str] = (
        "S. Hainsworth, M. Macleod: Particle filtering applied to musical tempo tracking. "
        "EURASIP Journal on Applied Signal Processing 2004(15)"
    )
    license: ClassVar[str] = "not stated for the audio, which is commercial; mirdata lists CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = (
        "audio is no longer distributed (ask researchers who have a copy); "
        "beats https://github.com/superbock/ISMIR2019 or https://github.com/CPJKU/beat_this_annotations"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 222}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        folder = annotation_folder(root, self.name, "H_1.0/annotations/beats", "annotations/beats").parent
        tracks = []
        for path in annotation_files(folder / "beats", self.name, "*.beats"):
            labels = {"beats": AnnotationFile(path, read_beats)}
            # Not every copy has tempi.
            tempo = folder / "tempo" / f"{path.stem}.bpm"
            if tempo.is_file():
                labels["tempo"] = AnnotationFile(tempo, read_tempo)
            # FLAC in mirdata's layout; other copies may have another format.
            audio = audio_file(folder.parent / "audio", path.stem, ".flac")
            split = derived_split(path.stem)
            tracks.append(Track(track_id=path.stem, audio=audio, split=split, group=path.stem, labels=labels))
        return tracks
