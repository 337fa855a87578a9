"""Where copies of a corpus keep things: distributions of one corpus differ in the names of their folders.

Conventions: names are tried in order; what a copy lacks is named, with the command that lists everything it lacks;
audio that is not there has the path where it was expected, and is reported as missing, one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musictf.datasets.folder import EXTENSIONS
from musictf.errors import InputError

AUDIO = EXTENSIONS | {".au"}


def index_file(root: Path, dataset: str, *names: str) -> Path:
    """The first of some files that a copy has: distributions of one corpus differ in where they put their index.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
    raise InputError(
        f"{root / names[0]} does not exist{others}; musictf data prepare {dataset} ROOT lists what a copy lacks"
    )


def annotation_folder(root: Path, dataset: str, *names: str) -> Path:
    """The first of some folders that a copy has.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise lacking(root, dataset, f"no folder {' or '.join(names)}")


def annotation_files(folder: Path, dataset: str, pattern: str) -> list[Path]:
    """Files of an annotation folder, in the order of their names; what the Finder leaves (``._a``) is passed over.

    Raises:
        InputError: there is none.
    """
    paths = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    if not paths:
        raise lacking(folder, dataset, f"no file {pattern}")
    return paths


def audio_folder(root: Path, *names: str) -> Path:
    """The first of some folders that exists, else the first: its files are then reported as missing, one by one."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def audio_file(folder: Path, stem: str, extension: str) -> Path:
    """The recording of a name, in whichever container it is; with ``extension`` where it is not there."""
    found = (folder / f"{stem}{other}" for other in (extension, *sorted(EXTENSIONS)))
    return next((path for path in found if path.is_file()), folder / f"{stem}{extension}")


def lacking(folder: Path, dataset: str, what: str) -> InputError:
    """The error about a copy that lacks something."""
    return InputError(f"{folder}: {what}; musictf data prepare {dataset} ROOT lists what a copy lacks")


def audio_root(value: Any, default: Path) -> Path:
    """The folder that ``dataset.audio_root`` names, or the default, which need not be there.

    Raises:
        InputError: the folder that was named does not exist.
    """
    if value is None:
        return default
    path = Path(str(value)).expanduser().resolve()
    if not path.is_dir():
        raise InputError(f"dataset.audio_root: {path} is not a folder")
    return path


class Collection:
    """Audio files below a folder, which need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in AUDIO and path.is_file():
                self._paths.setdefault(path.stem, []).append(path)

    def find(self, *names: str) -> Path:
        """The file of the first of these names that is there, or where a ``.wav`` of the first name would be.

        Raises:
            InputError: two files have the name.
        """
        found = next((self._paths[name] for name in names if name in self._paths), [self.folder / f"{names[0]}.wav"])
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} are both named as one track: keep one of them")
        return found[0]
