"""OpenMIC-2018: which of twenty instruments play in ten-second clips of the Free Music Archive.

Humphrey, Durand and McFee, "OpenMIC-2018: an open dataset for multiple instrument recognition", ISMIR 2018.

Layout: ``openmic-2018-aggregated-labels.csv`` (sample_key, instrument, relevance, num_responses), ``class-map.json``,
``openmic-2018-metadata.csv``, ``partitions/split01_{train,test}.csv`` and ``audio/000/000046_3840.ogg``.

Conventions: a clip was judged for some instruments only. ``tags`` are the judged instruments with a relevance of at
least 0.5; ``tags_known`` are all judged instruments: any other is unknown, not absent. **The tagging task has no mask
and counts the unknown as absent**: its scores on this corpus are a lower bound of little meaning and not comparable
with the literature, where each instrument is scored on the clips that were judged for it. The official partition has
no validation clips: a tenth of the training artists, by a hash, are taken for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import parse_number
from musictf.datasets.base import Dataset, Track, derived_split, single_root
from musictf.datasets.layout import index_file
from musictf.datasets.tabular import columns, read_object, table_rows
from musictf.errors import InputError

PRESENT = 0.5  # smallest relevance of an instrument that plays
METADATA = "openmic-2018-metadata.csv"


@dataclass(kw_only=True)
class OpenMIC2018(Dataset):
    """The clips of the official partition; ``root`` is the unpacked archive, or the folder where it was unpacked."""

    name: ClassVar[str] = "openmic2018"
    citation: ClassVar[str] = "Humphrey, Durand, McFee: OpenMIC-2018, ISMIR 2018"
    license: ClassVar[str] = "CC BY 4.0; each clip also under the licence of its recording (metadata)"
    homepage: ClassVar[str] = "https://zenodo.org/records/1432913: openmic-2018-v1.0.0.tgz"
    published: ClassVar[dict[str, int]] = {"tracks": 20_000}
    annotations: ClassVar[tuple[str, ...]] = ("tags", "artist")

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        metadata = index_file(root, self.name, METADATA, f"openmic-2018/{METADATA}")
        root = metadata.parent
        judged = _relevances(root)
        metadata_rows = table_rows(metadata, ("sample_key", "artist_id", "artist_name"))
        recordings = {row["sample_key"]: row for _, row in metadata_rows}
        tracks = []
        for part in ("train", "test"):
            path = index_file(root, self.name, f"partitions/split01_{part}.csv")
            for _, (clip,) in columns(path, 1, ","):
                tracks.append(_track(root, clip, part, judged.get(clip, {}), recordings.get(clip, {})))
        return tracks


def _relevances(root: Path) -> dict[str, dict[str, float]]:
    """Relevance of every instrument that a clip was judged for, by clip."""
    classes = read_object(index_file(root, OpenMIC2018.name, "class-map.json")).keys()
    path = index_file(root, OpenMIC2018.name, "openmic-2018-aggregated-labels.csv")
    judged: dict[str, dict[str, float]] = defaultdict(dict)
    for where, row in table_rows(path, ("sample_key", "instrument", "relevance")):
        if row["instrument"] not in classes:
            raise InputError(f"{where}: instrument {row['instrument']!r} is not in class-map.json")
        judged[row["sample_key"]][row["instrument"]] = parse_number(row["relevance"], where)
    return judged


def _track(root: Path, clip: str, part: str, judged: Mapping[str, float], metadata: Mapping[str, str]) -> Track:
    # Clips are named RECORDING_START: without metadata only the recording is known.
    group = metadata.get("artist_id") or clip.split("_")[0]
    # All clips of an artist, so that validation has other artists than training.
    held_out = part == "train" and derived_split(group) == "valid"
    labels: dict[str, Any] = {
        "tags": sorted(name for name, relevance in judged.items() if relevance >= PRESENT),
        "tags_known": sorted(judged),
    }
    if metadata.get("artist_name"):
        labels["artist"] = metadata["artist_name"]
    # FMA's folders: the first three digits of the recording.
    audio = root / "audio" / clip[:3] / f"{clip}.ogg"
    return Track(track_id=clip, audio=audio, split="valid" if held_out else part, group=group, labels=labels)
