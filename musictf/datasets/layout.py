"""Files and folders of a copy of a corpus: distributions of one corpus differ in the names of their folders.

Conventions: names are tried in order; an error names what a copy lacks, and the command that lists all of it; audio
that does not exist has the path where it was expected, and is reported as missing track by track.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musictf.datasets.folder import EXTENSIONS
from musictf.errors import InputError

AUDIO = EXTENSIONS | {".au"}  # the format of the GTZAN archive


def index_file(root: Path, dataset: str, *names: str) -> Path:
    """The first of some index files that exists in a copy.

    Args:
        root: Folder of the copy.
        dataset: Name of the corpus, for the error.
        *names: Paths below the root, in order of preference.

    Raises:
        InputError: none of them exists.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
    raise InputError(
        f"{root / names[0]} does not exist{others}; musictf data prepare {dataset} ROOT lists what a copy lacks"
    )


def annotation_folder(root: Path, dataset: str, *names: str) -> Path:
    """The first of some annotation folders that exists in a copy.

    Args:
        root: Folder of the copy.
        dataset: Name of the corpus, for the error.
        *names: Paths below the root, in order of preference.

    Raises:
        InputError: none of them exists.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise incomplete_copy(root, dataset, f"no folder {' or '.join(names)}")


def annotation_files(folder: Path, dataset: str, pattern: str) -> list[Path]:
    """Files of an annotation folder that match a pattern, in the order of their names.

    Args:
        folder: The folder.
        dataset: Name of the corpus, for the error.
        pattern: A glob.

    Raises:
        InputError: there is none.
    """
    # macOS adds a file ._a to archives for each file a.
    paths = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    if not paths:
        raise incomplete_copy(folder, dataset, f"no file {pattern}")
    return paths


def audio_folder(root: Path, *names: str) -> Path:
    """The first of some audio folders that exists, else the first, whose files are then reported as missing."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def audio_file(folder: Path, stem: str, extension: str) -> Path:
    """The audio file of a track in any format; if there is none, the path with ``extension``."""
    candidates = (folder / f"{stem}{other}" for other in (extension, *sorted(EXTENSIONS)))
    return next((path for path in candidates if path.is_file()), folder / f"{stem}{extension}")


def incomplete_copy(folder: Path, dataset: str, what: str) -> InputError:
    """The error for an incomplete copy; ``what`` names the missing part, such as ``no file *.lab``."""
    return InputError(f"{folder}: {what}; musictf data prepare {dataset} ROOT lists what a copy lacks")


def audio_root(value: Any, default: Path) -> Path:
    """The folder that ``dataset.audio_root`` names, or the default, which need not exist.

    Raises:
        InputError: ``dataset.audio_root`` names a folder that does not exist.
    """
    if value is None:
        return default
    path = Path(str(value)).expanduser().resolve()
    # A default may be missing, and its files are reported one by one; a stated folder is a typing error.
    if not path.is_dir():
        raise InputError(f"dataset.audio_root: {path} is not a folder")
    return path


class Collection:
    """Audio files below a folder, by name without extension; the folder need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            # .MP3 and .WAV are common in collections that were made on Windows.
            if path.suffix.lower() in AUDIO and path.is_file():
                self._paths.setdefault(path.stem, []).append(path)

    def find(self, *names: str) -> Path:
        """The file of the first of these names that exists; if none does, the path of a ``.wav`` with the first name.

        Raises:
            InputError: two files have the name.
        """
        # Two files of one name matter only if a track has that name.
        paths = next((self._paths[name] for name in names if name in self._paths), [self.folder / f"{names[0]}.wav"])
        if len(paths) > 1:
            raise InputError(f"{paths[0]} and {paths[1]} are both named as one track: keep one of them")
        return paths[0]
