"""Where copies of a corpus keep things: distributions of one corpus differ in the names of their folders.

Conventions: folders are tried in order; what a copy lacks is named, with the command that lists everything it lacks.
"""

from __future__ import annotations

from pathlib import Path

from musictf.datasets.folder import EXTENSIONS
from musictf.errors import InputError


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


def audio_file(folder: Path, stem: str, extension: str) -> Path:
    """The recording of a name, in whichever container it is; with ``extension`` where it is not there."""
    found = (folder / f"{stem}{other}" for other in (extension, *sorted(EXTENSIONS)))
    return next((path for path in found if path.is_file()), folder / f"{stem}{extension}")


def lacking(folder: Path, dataset: str, what: str) -> InputError:
    """The error about a copy that lacks something."""
    return InputError(f"{folder}: {what}; musictf data prepare {dataset} ROOT lists what a copy lacks")
