"""Ballroom: 698 excerpts of 30 s of ballroom dance music, with beats, bars, tempo and dance.

Gouyon, Klapuri, Dixon, Alonso, Tzanetakis, Uhle and Cano, "An experimental comparison of audio tempo induction
algorithms", IEEE TASLP 14(5), 2006; beats by Krebs, Böck and Widmer, "Rhythmic pattern modeling for beat and downbeat
tracking in musical audio", ISMIR 2013.

Conventions: both layouts are read, the one of mirdata (``B_1.0``) and the one of the archives (``BallroomData`` and
``BallroomAnnotations``). Genre is the dance, which is the name of the folder; the three kinds of rumba are one. Beats
are counted from 1 in the bar; intros without musical content have none (README of the annotations). Thirteen files
repeat another one and are left out, so that 685 tracks remain, as in Beat This! (Foscarin 2024). A group is the name
of a file without its track number: an album or a medium.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import read_beats, read_tempo
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder, audio_folder
from musictf.datasets.tabular import read_text

# File -> the file that it repeats. Sturm 2014, as listed by the README of github.com/CPJKU/BallroomAnnotations: four
# exact and nine recording replicas.
REPLICAS = {
    "Albums-Chrisanne2-12": "Albums-AnaBelen_Veneo-11",
    "Albums-Fire-09": "Albums-Fire-08",
    "Albums-Latin_Jam2-13": "Albums-Latin_Jam2-05",
    "Media-104705": "Albums-Secret_Garden-01",
    "Albums-AnaBelen_Veneo-15": "Albums-AnaBelen_Veneo-03",
    "Albums-Ballroom_Magic-18": "Albums-Ballroom_Magic-03",
    "Albums-Latin_Jam-13": "Albums-Latin_Jam-04",
    "Albums-Latin_Jam-14": "Albums-Latin_Jam-08",
    "Albums-Latin_Jam-15": "Albums-Latin_Jam-06",
    "Albums-Latin_Jam2-14": "Albums-Latin_Jam2-02",
    "Albums-Latin_Jam2-15": "Albums-Latin_Jam2-07",
    "Media-103414": "Albums-Latin_Jam3-02",
    "Media-103415": "Media-103402",
}


@dataclass(kw_only=True)
class Ballroom(Dataset):
    """Excerpts of dance music. ``root`` holds ``B_1.0``, or ``BallroomData`` and ``BallroomAnnotations``."""

    name: ClassVar[str] = "ballroom"
    annotations: ClassVar[tuple[str, ...]] = ("beats", "tempo", "genre")
    citation: ClassVar[str] = (
        "F. Gouyon, A. Klapuri, S. Dixon, M. Alonso, G. Tzanetakis, C. Uhle, P. Cano: An experimental comparison of "
        "audio tempo induction algorithms. IEEE TASLP 14(5), 2006; beats: F. Krebs, S. Böck, G. Widmer, ISMIR 2013"
    )
    license: ClassVar[str] = "not stated for the audio (BallroomDancers.com); mirdata lists CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = (
        "audio https://mtg.upf.edu/ismir2004/contest/tempoContest/data1.tar.gz, tempo data2.tar.gz beside it, "
        "beats https://github.com/CPJKU/BallroomAnnotations"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 698}
    known_bad: ClassVar[dict[str, str]] = {
        replica: f"the same recording as {original} (Sturm 2014)" for replica, original in REPLICAS.items()
    }

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        beats = annotation_folder(
            root, self.name, "B_1.0/annotations/beats", "annotations/beats", "BallroomAnnotations",
            "BallroomAnnotations-master",
        )  # fmt: skip
        tempi = audio_folder(
            root, "B_1.0/annotations/tempo", "annotations/tempo", "BallroomAnnotations/ballroomGroundTruth"
        )
        audio = audio_folder(root, "B_1.0/audio", "BallroomData", "audio")
        # The folder of each recording: from the list in the archive (./Waltz/Media-1.wav a line), which a copy without
        # audio may still have, and from the files that exist.
        listing = audio / "allBallroomFiles"
        listed = [Path(line) for line in read_text(listing).split()] if listing.is_file() else []
        dances = {path.stem: path.parent.name for path in [*listed, *sorted(audio.glob("*/*.wav"))]}
        paths = annotation_files(beats, self.name, "*.beats")
        return [_track(path, tempi / f"{path.stem}.bpm", audio, dances.get(path.stem)) for path in paths]


def _track(beats: Path, tempo: Path, audio: Path, dance: str | None) -> Track:
    labels: dict[str, Any] = {"beats": AnnotationFile(beats, read_beats)}
    if tempo.is_file():
        labels["tempo"] = AnnotationFile(tempo, read_tempo)
    if dance is not None:
        labels["genre"] = dance.split("-")[0]  # Rumba-American, Rumba-International, Rumba-Misc
    # Albums-Fire-08 is track 8 of an album, Media-105901 track 1 of a medium.
    group = beats.stem[:-2].rstrip("-")
    path = audio / (dance or "") / f"{beats.stem}.wav"
    return Track(track_id=beats.stem, audio=path, split=derived_split(group), group=group, labels=labels)
