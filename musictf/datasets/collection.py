"""The user's own audio, for corpora that publish annotations only: files are found by the name of their track.

Conventions: the folder is searched at any depth and in any container; what is not there has the path where a ``.wav``
would be, so that it is reported as missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musictf.datasets.folder import EXTENSIONS
from musictf.errors import InputError

AUDIO = EXTENSIONS | {".au"}


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
