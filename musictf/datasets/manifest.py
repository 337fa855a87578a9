"""Your own tracks with annotations: a folder with ``manifest.jsonl``, one track a line.

    {"track_id": "a1", "audio": "audio/a1.flac", "split": "train", "tags": ["piano"], "chords": "chords/a1.lab",
     "beats": "beats/a1.beats", "onsets": "onsets/a1.txt", "sections": "sections/a1.lab", "key": "C major",
     "genre": "rock", "instrument": "piano", "tempo": 120.0, "artist": "...", "group": "...", "license": "..."}

Conventions: only ``track_id`` and ``audio`` are required; unknown fields are kept as labels; paths are relative to the
folder; ``versions`` may list other recordings of the same music, aligned in time. The split of a track without
``split`` follows from a hash of its ``group`` (or ``artist``, or ``track_id``), so that a group lies in one split.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import read_beats, read_chords, read_onsets, read_sections
from musictf.datasets.base import SPLITS, AnnotationFile, Dataset, Track, derived_split, roots
from musictf.errors import InputError

# Fields that name an annotation file; all others hold their value.
READERS: dict[str, Callable[[Path], Any]] = {
    "chords": read_chords,
    "beats": read_beats,
    "onsets": read_onsets,
    "sections": read_sections,
}


@dataclass(kw_only=True)
class Manifest(Dataset):
    """Tracks listed in ``manifest.jsonl``.

    Attributes:
        root: The folder with ``manifest.jsonl``, or a list of folders, which joins corpora.
    """

    name: ClassVar[str] = "manifest"
    citation: ClassVar[str] = "the user's own data"
    license: ClassVar[str] = "stated track by track in the manifest"

    root: Any = None

    def read_tracks(self) -> list[Track]:
        tracks: dict[str, Track] = {}
        for root in roots(self.root, "manifest"):
            for track in read_manifest(root):
                if track.track_id in tracks:
                    other = tracks[track.track_id].source
                    raise InputError(f"track_id {track.track_id!r} occurs in {other} and in {root}: rename one of them")
                tracks[track.track_id] = track
        return list(tracks.values())

    @property
    def label(self) -> str:
        return "+".join(root.name for root in roots(self.root, "manifest"))


def read_manifest(root: Path) -> list[Track]:
    """Tracks of one folder, in the order of its ``manifest.jsonl``.

    Raises:
        InputError: the file is missing, or a line of it cannot be used.
    """
    path = root / "manifest.jsonl"
    if not path.is_file():
        raise InputError(f"{root} holds no manifest.jsonl; for plain audio without labels use dataset=folder")
    tracks: dict[str, Track] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    # Not splitlines(): a title may contain a Unicode line separator.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        track = _track(root, line, f"{path}:{number}")
        if track.track_id in tracks:
            raise InputError(f"{path}:{number}: track_id {track.track_id!r} occurs twice")
        tracks[track.track_id] = track
    if not tracks:
        raise InputError(f"{path} lists no track")
    return list(tracks.values())


def _track(root: Path, line: str, where: str) -> Track:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected an object with track_id and audio")
    fields = {name: value for name, value in fields.items() if value is not None}  # null means absent
    for needed in ("track_id", "audio"):
        if not isinstance(fields.get(needed), str) or not fields[needed]:
            raise InputError(f"{where}: field {needed!r} is missing or not a text")
    track_id = fields.pop("track_id")
    # Estimates are written to a file of this name. isprintable() excludes lone surrogates too, which do not encode.
    parts = Path(track_id).parts
    is_safe = track_id.isprintable() and not Path(track_id).is_absolute() and ".." not in parts
    if not is_safe or any(len(part.encode()) > 200 for part in parts):
        raise InputError(
            f"{where}: track_id {track_id[:60]!r} must be usable as a file name: no leading '/', no '..', no control "
            "characters, at most 200 bytes between slashes"
        )
    # Also where a split is stated: intervals resample groups.
    group = str(fields.get("group") or fields.get("artist") or track_id)
    split = fields.pop("split", None) or derived_split(group)
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r} is unknown: one of {', '.join(SPLITS)}")
    # "tags": "piano" would be five tags.
    for name in ("tags", "versions"):
        value = fields.get(name, [])
        if not (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
            raise InputError(f"{where}: {name!r} must be a list of texts, found {value!r}")
    audio = root / fields.pop("audio")
    versions = tuple(root / name for name in fields.pop("versions", ()))
    labels = {
        key: AnnotationFile(_file(root, value, key, where), READERS[key]) if key in READERS else value
        for key, value in fields.items()
    }
    return Track(
        track_id=track_id,
        audio=audio,
        split=split,
        versions=versions,
        group=group,
        source=str(root),
        labels=labels,
    )


def _file(root: Path, name: Any, field: str, where: str) -> Path:
    """The annotation file that a field names; checked now, so that a typing error shows before a long run."""
    path = root / str(name)
    if not path.is_file():
        raise InputError(f"{where}: {field} file {path} does not exist")
    return path
