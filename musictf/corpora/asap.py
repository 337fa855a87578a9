"""ASAP: performances of Western piano music, with beats and downbeats transferred from their scores.

Foscarin, McLeod, Rigaux, Jacquemard and Sakai, "ASAP: a dataset of aligned scores and performances for piano
transcription", ISMIR 2020.

Layout: ``metadata.csv`` and, beside each performance, ``<performance>_annotations.txt``: time, time, label. A label is
``b``, ``db`` or ``bR``, then perhaps a time signature and a key signature (``db,4/4,-3``).

Conventions: ``db`` is position 1 and other beats count on from it, so a bar has as many beats as were annotated; beats
before the first downbeat are the end of a bar as long as the first whole one. ``bR`` is a beat of a bar whose notes do
not add up to its signature (a cadenza, a pickup within the piece, an error of the score): it is kept, counts on, and is
never a downbeat. A key signature is not a key, and is left out. Audio is that of MAESTRO 2.0.0, cut by the authors'
script; half of the performances are MIDI files only, and are read if ``audio_root`` contains renderings of them. All
performances of a work share a split, which is derived: there is no official one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import Beats, assemble_beats, parse_number
from musictf.datasets.bar_positions import positions_of
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import audio_root, index_file
from musictf.datasets.tabular import columns, table_rows
from musictf.errors import InputError

COLUMNS = ("composer", "title", "midi_performance", "performance_annotations", "audio_performance")
KINDS = ("b", "db", "bR")  # beat, downbeat, beat of an irregular bar


@dataclass(kw_only=True)
class ASAP(Dataset):
    """Performances with ``beats``.

    Attributes:
        root: The checkout of asap-dataset.
        audio_root: Renderings of **all** performances, ``<midi_performance>.wav`` at the paths of the metadata, which
            replace the recordings.
    """

    name: ClassVar[str] = "asap"
    citation: ClassVar[str] = "Foscarin, McLeod, Rigaux, Jacquemard, Sakai: ASAP, ISMIR 2020"
    license: ClassVar[str] = "annotations: CC BY-NC-SA 4.0; audio (MAESTRO): CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = (
        "git clone https://github.com/fosfrancesco/asap-dataset; MAESTRO 2.0.0 from "
        "https://magenta.tensorflow.org/datasets/maestro, then its initialize_dataset.py"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 520}  # with audio
    annotations: ClassVar[tuple[str, ...]] = ("beats",)

    root: Any = None
    audio_root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        performances = [row for _, row in table_rows(index_file(root, self.name, "metadata.csv"), COLUMNS)]
        # Performances without a recording have an empty field.
        if self.audio_root is None:
            return [
                _track(row, root, root / row["audio_performance"]) for row in performances if row["audio_performance"]
            ]
        rendered = audio_root(self.audio_root, root)
        return [_track(row, root, (rendered / row["midi_performance"]).with_suffix(".wav")) for row in performances]


def read_beats(path: Path) -> Beats:
    """Beats of an annotation file, with positions that follow from its downbeats.

    Raises:
        InputError: a line does not parse, or times do not ascend.
    """
    beats: list[tuple[str, float]] = []
    downbeats: list[bool] = []
    for where, (time, _, label) in columns(path, 3, "\t"):
        kind = label.split(",")[0]
        if not kind:  # a signature alone
            continue
        if kind not in KINDS:
            raise InputError(f"{where}: {kind!r} is not one of {', '.join(KINDS)}")
        beats.append((where, parse_number(time, where)))
        downbeats.append(kind == "db")
    return assemble_beats(((*beat, position) for beat, position in zip(beats, positions_of(downbeats))), path)


def _track(row: dict[str, str], root: Path, audio: Path) -> Track:
    # A title is that of a movement or piece; different composers have pieces of one title.
    work = f"{row['composer']} {row['title']}"
    return Track(
        track_id=str(Path(row["midi_performance"]).with_suffix("")),
        audio=audio,
        split=derived_split(work),
        group=work,
        labels={"beats": AnnotationFile(root / row["performance_annotations"], read_beats)},
    )
