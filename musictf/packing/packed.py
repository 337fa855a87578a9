"""A corpus decoded once by ``musictf data pack``: pretraining reads it without decoding and without the original audio.

Conventions: tracks have the names, splits, groups and labels of the corpus that was packed; ``audio`` is the original
file, which need not exist: what decodes it (probing, ``data check``) then reports it as missing. Format:
`musictf.packing.format`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import read_beats, read_chords, read_onsets, read_sections
from musictf.datasets.base import AnnotationFile, Dataset, Track, roots
from musictf.datasets.identity import FILE_NAME, Identities, Identity, read_identities
from musictf.errors import InputError
from musictf.files import cache_folder
from musictf.packing.format import Pack, Slot, pack_slots, read_pack
from musictf.packing.streamed_recordings import streamed_slots

# Readers of the annotation files of a pack, by suffix: the formats of a manifest.
READERS: dict[str, Callable[[Path], Any]] = {
    ".lab": read_chords,
    ".beats": read_beats,
    ".sections": read_sections,
    ".txt": read_onsets,
}


@dataclass(kw_only=True)
class Packed(Dataset):
    """A folder that ``musictf data pack`` wrote; a list of roots joins packs of one sample rate.

    Attributes:
        root: The folder, or a list of folders.
        url: Where the chunks of a pack of ``format=litdata`` are (``s3://bucket/folder``), if not in the folder itself.
    """

    name: ClassVar[str] = "packed"
    citation: ClassVar[str] = "that of the corpus that was packed"
    license: ClassVar[str] = "that of the corpus that was packed"
    homepage: ClassVar[str] = "musictf data pack makes one of any corpus: dataset=... output=FOLDER"

    root: Any = None
    url: str | None = None

    def read_tracks(self) -> list[Track]:
        folders = roots(self.root, "packed")
        if self.url and len(folders) > 1:
            raise InputError("dataset.url is the place of one pack: give a single dataset.root")
        packs = [read_pack(folder, not self.url) for folder in folders]
        if self.url and packs[0].header["store"] != "litdata":
            raise InputError(
                f"dataset.url: {folders[0]} is no pack of format=litdata, which alone is read from elsewhere"
            )
        rates = {pack.header["sample_rate"]: pack.folder for pack in packs}
        if len(rates) > 1:
            (rate, folder), (other_rate, other_folder) = list(rates.items())[:2]
            raise InputError(
                f"dataset.root: {folder} is packed at {rate} Hz and {other_folder} at {other_rate} Hz; pack one of "
                "them again"
            )
        tracks: dict[str, tuple[Track, Path]] = {}
        for pack in packs:
            is_streamed = pack.header["store"] == "litdata"
            all_slots = (
                streamed_slots(pack, self.url, str(cache_folder() / "chunks"))
                if is_streamed
                else [pack_slots(pack, line) for line in pack.lines]
            )
            for line, slots in zip(pack.lines, all_slots, strict=True):
                # Of joined packs the source is the pack, so that a batch or its weights can be drawn by pack.
                track = _track(pack, line, slots, str(pack.folder) if len(packs) > 1 else line["source"])
                if track.track_id in tracks:
                    other = tracks[track.track_id][1]
                    raise InputError(f"track_id {track.track_id!r} occurs in {other} and in {pack.folder}")
                tracks[track.track_id] = (track, pack.folder)
        return [track for track, _ in tracks.values()]

    @property
    def label(self) -> str:
        return "+".join(root.name for root in roots(self.root, "packed"))


def packed_identities(tracks: Sequence[Track]) -> Identities | None:
    """Identities of tracks as they were stored at packing; nothing is decoded.

    Returns:
        The identities of all recordings, in the order of the tracks; None unless every track is packed.

    Raises:
        InputError: a pack's list is damaged, or does not name one of its tracks.
    """
    if not all(track.slots for track in tracks):
        return None
    lists = {folder: read_identities(Path(folder) / FILE_NAME) for folder in {t.slots[0].folder for t in tracks}}
    by_track: dict[tuple[str, str], list[Identity]] = {}
    for folder, listed in lists.items():
        for identity in listed.recordings:
            by_track.setdefault((folder, identity.track_id), []).append(identity)
    recordings = []
    # A list has the recordings of a track in the order of its slots: the track itself, then its versions.
    for track in tracks:
        track_identities = by_track.get((track.slots[0].folder, track.track_id), [])
        if len(track_identities) != len(track.slots):
            raise InputError(
                f"{track.slots[0].folder}/{FILE_NAME}: does not fit {track.track_id!r}; make the pack again"
            )
        recordings += track_identities
    # Fingerprints of different versions never match, so a leak between such packs would go unseen.
    versions = {listed.fingerprints for listed in lists.values()}
    if len(versions) > 1:
        raise InputError(
            f"dataset.root: packs with fingerprints of versions {sorted(versions)}; make the older one again"
        )
    return Identities(recordings, fingerprints=versions.pop() if versions else Identities([]).fingerprints)


def _track(pack: Pack, line: dict[str, Any], slots: tuple[Slot, ...], source: str) -> Track:
    labels = dict(line["labels"])
    for name, file in line["files"].items():
        path = pack.folder / file
        labels[name] = AnnotationFile(path, READERS[path.suffix])
    audio, *versions = (Path(entry) for entry in line["audio"])
    return Track(
        track_id=line["track_id"],
        audio=audio,
        split=line["split"],
        versions=tuple(versions),
        group=line["group"],
        source=source,
        slots=slots,
        labels=labels,
    )
