"""Who a track is: its file, its sound, its recording and its group, compact enough to be kept beside a backbone.

A list of identities is what one corpus leaves behind so that another can be compared with it when the first is gone.
Every audio file of a track has one, versions included.

Conventions: the file digest is SHA-256 of the bytes. The audio digest is SHA-256 of the sample rate, the number of
channels and the decoded samples, interleaved and rounded to 16 bits (``rint(32768 x)``, clipped), so that a lossless
copy (wav, flac, aiff; tags and padding aside) has the same; a lossy copy has another, and is left to the fingerprint.
``identities.jsonl.gz`` holds a line on the list itself, then one JSON object a recording: 4.8 kB for 4 minutes, 48 MB
for 10 000 tracks. What was decoded once is kept in the cache under its file digest, a file each.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from musictf.audio.fingerprint import VERSION, Fingerprint, Fingerprinter, decoded_blocks, pack, unpack
from musictf.datasets.base import Track
from musictf.datasets.parallel import in_threads
from musictf.distributed import rank
from musictf.errors import InputError
from musictf.files import cache_folder, file_digest, write_atomically

FORMAT = "musictf-identities/1"
FILE_NAME = "identities.jsonl.gz"
LEVELS = ("full", "files")
_DIGEST_BYTES = 32


@dataclass(frozen=True, eq=False)
class Identity:
    """One audio file of one track.

    Attributes:
        track_id: The track, which may have several.
        split: Its split.
        file: Digest of the file (64 hexadecimal digits).
        audio: Digest of the decoded audio (64 hexadecimal digits); empty where the file was not decoded.
        names: Its group and its artist, folded to lower case; without empty ones and the track's own name.
        fingerprint: Spectral peaks (P,), see ``musictf.audio.fingerprint``; none where the file was not decoded.
    """

    track_id: str
    split: str
    file: str
    audio: str = ""
    names: tuple[str, ...] = ()
    fingerprint: Fingerprint = field(default_factory=lambda: np.zeros(0, np.uint32))


@dataclass(frozen=True)
class Identities:
    """The identities of one corpus.

    Attributes:
        recordings: One for each audio file.
        level: ``full``, or ``files``: only the bytes of the files were read, nothing was decoded.
        fingerprints: Version of the fingerprints; those of another version are not comparable.
    """

    recordings: list[Identity]
    level: str = "full"
    fingerprints: int = VERSION


def identities(tracks: Sequence[Track], level: str = "full", versions: bool = True) -> Identities:
    """Identities of tracks, those of files seen before from the cache.

    Args:
        tracks: The tracks.
        level: ``full``, or ``files``, which decodes nothing.
        versions: Include the tracks' other recordings.

    Raises:
        InputError: a file is missing or cannot be decoded.
    """
    files = [(track, path) for track in tracks for path in (track.audio, *(track.versions if versions else ()))]
    with Progress(console=Console(stderr=True), disable=rank() > 0 or not files, transient=True) as progress:
        paths = [path for _, path in files]
        digests = in_threads(_digest, paths, progress, f"reading {len(paths)} files")
        known = {} if level == "files" else _decoded(dict(zip(digests, paths, strict=True)), progress)
    nothing = ("", np.zeros(0, np.uint32))
    recordings = []
    for (track, _), digest in zip(files, digests, strict=True):
        audio, fingerprint = known.get(digest, nothing)
        recordings.append(Identity(track.track_id, track.split, digest, audio, _names(track), fingerprint))
    return Identities(recordings, level)


def write_identities(path: Path, corpus: Identities) -> str:
    """Write the identities of a corpus, atomically.

    Returns:
        Digest of the file, the same for the same corpus (64 hexadecimal digits).
    """
    head = {"format": FORMAT, "level": corpus.level, "fingerprints": corpus.fingerprints}
    lines = [json.dumps(line) + "\n" for line in (head, *map(_line, corpus.recordings))]
    content = gzip.compress("".join(lines).encode(), mtime=0)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def read_identities(path: Path) -> Identities:
    """The identities that were written.

    Raises:
        InputError: the file is damaged, or of another format.
    """
    try:
        head, *lines = (json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines())
        found = head["format"]
        recordings = [_identity(line) for line in lines] if found == FORMAT else []
    except (OSError, EOFError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); pretraining writes it") from None
    if found != FORMAT:
        raise InputError(f"{path}: format {found!r}, this version reads {FORMAT!r}")
    return Identities(recordings, head["level"], head["fingerprints"])


def _names(track: Track) -> tuple[str, ...]:
    """What a track may have in common with another besides its sound."""
    named = {str(name).strip().casefold() for name in (track.group, track.labels.get("artist") or "")}
    return tuple(sorted(named - {"", track.track_id.strip().casefold()}))


def _decoded(paths: dict[str, Path], progress: Progress) -> dict[str, tuple[str, Fingerprint]]:
    """Audio digest and fingerprint by file digest; each file is decoded once, however many tracks name it."""
    known = {digest: kept for digest in paths if (kept := _read_kept(digest)) is not None}
    missing = [(digest, path) for digest, path in paths.items() if digest not in known]
    made = in_threads(lambda pair: _keep(*pair), missing, progress, f"fingerprinting {len(missing)} recordings")
    return known | {digest: result for (digest, _), result in zip(missing, made, strict=True)}


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); remove it from the corpus") from None


def _sound(path: Path) -> tuple[str, Fingerprint]:
    """Audio digest and fingerprint of a file, decoded once."""
    digest, printer = hashlib.sha256(), None
    for sample_rate, block in decoded_blocks(path):
        if printer is None:
            printer = Fingerprinter(sample_rate)
            digest.update(f"{sample_rate} {block.shape[1]} ".encode())
        digest.update(np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2").tobytes())
        printer.add(block)
    return digest.hexdigest(), printer.finish() if printer else np.zeros(0, np.uint32)


def _kept_path(digest: str) -> Path:
    return cache_folder() / "identities" / str(VERSION) / digest[:2] / digest


def _keep(digest: str, path: Path) -> tuple[str, Fingerprint]:
    """Decode a file and keep the result; a process that does the same beside this one writes the same bytes."""
    audio, fingerprint = _sound(path)
    write_atomically(_kept_path(digest), bytes.fromhex(audio) + pack(fingerprint))
    return audio, fingerprint


def _read_kept(digest: str) -> tuple[str, Fingerprint] | None:
    path = _kept_path(digest)
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        return content[:_DIGEST_BYTES].hex(), unpack(content[_DIGEST_BYTES:])
    except (zlib.error, ValueError):
        return None  # a damaged cache is only slow


def _line(identity: Identity) -> dict[str, Any]:
    line = {name: getattr(identity, name) for name in ("track_id", "split", "file", "audio", "names")}
    return line | {"fingerprint": base64.b64encode(pack(identity.fingerprint)).decode()}


def _identity(line: dict[str, Any]) -> Identity:
    peaks = unpack(base64.b64decode(line["fingerprint"]))
    return Identity(line["track_id"], line["split"], line["file"], line["audio"], tuple(line["names"]), peaks)
