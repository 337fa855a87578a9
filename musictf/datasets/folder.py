"""Any folder of audio, without labels: enough to pretrain on.

Conventions: every file below ``root`` with a known extension is a track, named by its path; there is no test
split. One track in ten, by a hash of its name, is held out for the validation loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, derived_split, roots
from musictf.errors import InputError

EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})


@dataclass(kw_only=True)
class Folder(Dataset):
    """Audio files below ``root``, less those that match a pattern of ``exclude`` (``*/demo/*``)."""

    name: ClassVar[str] = "folder"
    citation: ClassVar[str] = "the user's own data"
    license: ClassVar[str] = "the user's own data"

    root: Any = None
    exclude: list[str] | None = None

    def read_tracks(self) -> list[Track]:
        paths = [(root, path) for root in roots(self.root, "folder") for path in sorted(root.rglob("*"))]
        for root in roots(self.root, "folder"):
            if (root / "manifest.jsonl").is_file():
                raise InputError(f"{root} has a manifest.jsonl, whose splits must hold: use dataset=manifest")
        chosen = [(root, path) for root, path in paths if path.is_file() and self._wanted(root, path)]
        if not chosen:
            raise InputError(f"dataset.root: no audio ({', '.join(sorted(EXTENSIONS))}) below {self.root}")
        tracks = [_track(root, path) for root, path in chosen]
        if len({track.track_id for track in tracks}) < len(tracks):
            raise InputError(f"dataset.root: two folders of {self.root} share name and files: rename one of them")
        if all(track.split == "valid" for track in tracks):
            tracks = [replace(track, split="train") for track in tracks]
        return tracks

    @property
    def label(self) -> str:
        return "+".join(root.name for root in roots(self.root, "folder"))

    def _wanted(self, root: Path, path: Path) -> bool:
        name = str(path.relative_to(root))
        return path.suffix.lower() in EXTENSIONS and not any(fnmatch(name, glob) for glob in self.exclude or ())


def _track(root: Path, path: Path) -> Track:
    track_id = f"{root.name}/{path.relative_to(root)}"
    split = "valid" if derived_split(track_id) == "valid" else "train"
    return Track(track_id=track_id, audio=path, split=split, group=track_id, source=str(root))
