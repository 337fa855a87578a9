"""Resampled values of scores that are no means over tracks: one compressed file a run, ``resamples.npz``.

Its keys are ``kind/decoder/cell/score``, such as ``mel/argmax/chord_sequence_layer0_seed0/wcsr_majmin``. Two systems
can be compared resample by resample: `musictf.results.statistics.resample_counts` draws the same tracks for both.

Shapes:  R resamples
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.results.rows import Row, cell_name
from musictf.results.statistics import Floats

RESAMPLES = "resamples.npz"
_DECIMALS = 6  # as in per_track.csv


def resample_key(row: Row, score: str) -> str:
    """Key of the resampled values of a score: ``kind/decoder/cell/score``."""
    return f"{row['backbone']['kind']}/{row['decoder']['name']}/{cell_name(row)}/{score}"


def add_resamples(folder: Path, values: Mapping[str, Floats]) -> None:
    """Add resampled values to ``resamples.npz`` of a run folder; what is there already stays or is replaced.

    The file is replaced as a whole, so that a run that is killed leaves the earlier one.

    Args:
        folder: The run folder.
        values: Key (see `resample_key`) -> score in each resample, (R,); rounded to 6 decimals.

    Raises:
        InputError: the file that is there cannot be read.
    """
    if not values:
        return
    path = folder / RESAMPLES
    content = io.BytesIO(path.read_bytes() if path.is_file() else b"")
    if path.is_file() and values.keys() & _keys(path):
        # A zip file cannot drop a member: where a killed run has left the same keys, everything is written again.
        values = read_resamples(folder) | dict(values)
        content = io.BytesIO()
    # Appended to a copy in memory: compressing everything again for each row would cost more than the probe's scores.
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for key, column in values.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, np.round(np.asarray(column, np.float64), _DECIMALS))
    write_atomically(path, content.getvalue())


def read_resamples(folder: Path) -> dict[str, Floats]:
    """Key -> score in each resample, (R,), NaN where undefined; empty where the run has no such file.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / RESAMPLES
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


def _keys(path: Path) -> set[str]:
    """Keys of a file, without its arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise _broken(path, error) from error


@lru_cache(maxsize=64)
def _read(path: Path, modified: int) -> dict[str, Floats]:
    """All arrays of a file, read once a version of the file."""
    try:
        # Opened here: numpy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: np.asarray(arrays[key], np.float64) for key in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path}: cannot be read ({reason}); remove it and probe again")
