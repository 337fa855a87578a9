"""Any folder of audio, without labels: enough to pretrain on.

Conventions: every file below ``root`` with a known extension is a track, named by its path; there is no test split. One
track in ten, by a hash of its name, is in the validation split, for the validation loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any, ClassVar

from musictf.datasets.base import Dataset, Track, derived_split, roots
from musictf.errors import InputError

# What libsndfile decodes; compressed formats other than mp3 and ogg need another decoder.
EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})


@dataclass(kw_only=True)
class Folder(Dataset):
    """Audio files below ``root``.

    Attributes:
        root: A folder, or a list of folders.
        exclude: Patterns of paths to leave out, relative to the root (``*/demo/*``).
    """

    name: ClassVar[str] = "folder"
    citation: ClassVar[str] = "the user's own data"
    license: ClassVar[str] = "the user's own data"

    root: Any = None
    exclude: list[str] | None = None

    def read_tracks(self) -> list[Track]:
        folders = roots(self.root, "folder")
        for root in folders:
            # Read as a folder, its test tracks would be pretrained on.
            if (root / "manifest.jsonl").is_file():
                raise InputError(f"{root} has a manifest.jsonl, whose splits must hold: use dataset=manifest")
        tracks = []
        for root, path in [(folder, path) for folder in folders for path in sorted(folder.rglob("*"))]:
            name = str(path.relative_to(root))
            is_excluded = any(fnmatch(name, pattern) for pattern in self.exclude or ())
            if path.suffix.lower() in EXTENSIONS and not is_excluded and path.is_file():
                # With the name of the folder, so that joined folders may hold files of one name.
                track_id = f"{root.name}/{name}"
                split = "valid" if derived_split(track_id) == "valid" else "train"
                tracks.append(Track(track_id=track_id, audio=path, split=split, group=track_id, source=str(root)))
        if not tracks:
            raise InputError(f"dataset.root: no audio ({', '.join(sorted(EXTENSIONS))}) below {self.root}")
        if len({track.track_id for track in tracks}) < len(tracks):
            raise InputError(f"dataset.root: two folders of {self.root} share name and files: rename one of them")
        # A handful of files may all hash to valid; pretraining needs some to train on.
        if all(track.split == "valid" for track in tracks):
            tracks = [replace(track, split="train") for track in tracks]
        return tracks

    @property
    def label(self) -> str:
        return "+".join(root.name for root in roots(self.root, "folder"))
