"""Identities of tracks (file, decoded audio, fingerprint, group), compact enough to be kept beside a backbone.

A list of identities of the pretraining corpus lets the leakage report compare other corpora with it, without its audio.
Every audio file of a track has an identity, versions included.

Conventions: the file digest is SHA-256 of the bytes. The audio digest is SHA-256 of the sample rate, the number of
channels and the decoded samples, interleaved and rounded to 16 bits (``rint(32768 x)``, clipped): it is equal for
lossless copies (wav, flac, aiff, whatever their tags) and differs for lossy ones, which the fingerprint finds.
``identities.jsonl.gz`` has a line about the list itself, then one JSON object a recording: 4.8 kB for 4 minutes, 48 MB
for 10 000 tracks. Results of decoding are kept in the cache, one file for each file digest.

Shapes:  P spectral peaks of a fingerprint
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
LEVELS = ("full", "files")  # files: nothing is decoded
_DIGEST_BYTES = 32  # of SHA-256


# eq=False: == of two arrays is an array, and comparing identities would raise.
@dataclass(frozen=True, eq=False)
class Identity:
    """One audio file of one track.

    Attributes:
        track_id: The track, which may have several files.
        split: Its split.
        file: Digest of the file (64 hexadecimal digits).
        audio: Digest of the decoded audio (64 hexadecimal digits); empty where the file was not decoded.
        names: Its group and its artist in lower case, without empty ones and the track_id.
        fingerprint: Spectral peaks (P,), see ``musictf.audio.fingerprint``; P = 0 if the file was not decoded.
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
        level: ``full``, or ``files``: nothing was decoded, only the bytes of the files were read.
        fingerprints: Version of the fingerprints; different versions are not comparable.
    """

    recordings: list[Identity]
    level: str = "full"
    fingerprints: int = VERSION


def identities(tracks: Sequence[Track], level: str = "full", versions: bool = True) -> Identities:
    """Identities of tracks; those of known files come from the cache.

    Args:
        tracks: The tracks.
        level: ``full``, or ``files``, which decodes nothing.
        versions: Whether to include other versions of the tracks.

    Raises:
        InputError: a file is missing or cannot be decoded.
    """
    files = [(track, path) for track in tracks for path in (track.audio, *(track.versions if versions else ()))]
    with Progress(console=Console(stderr=True), disable=rank() > 0 or not files, transient=True) as progress:
        paths = [path for _, path in files]  # a file that several tracks share is hashed for each of them
        digests = in_threads(_digest, paths, progress, f"reading {len(paths)} files")
        results = {} if level == "files" else _decoded(dict(zip(digests, paths, strict=True)), progress)
    not_decoded = ("", np.zeros(0, np.uint32))
    recordings = []
    for (track, _), digest in zip(files, digests, strict=True):
        audio, fingerprint = results.get(digest, not_decoded)
        recordings.append(Identity(track.track_id, track.split, digest, audio, _names(track), fingerprint))
    return Identities(recordings, level)


def write_identities(path: Path, corpus: Identities) -> str:
    """Write the identities of a corpus, atomically.

    Returns:
        Digest of the file, the same for the same corpus (64 hexadecimal digits).
    """
    head = {"format": FORMAT, "level": corpus.level, "fingerprints": corpus.fingerprints}
    lines = [json.dumps(line) + "\n" for line in (head, *map(_line, corpus.recordings))]
    # mtime=0: gzip would store the time, and equal lists would differ.
    content = gzip.compress("".join(lines).encode(), mtime=0)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def read_identities(path: Path) -> Identities:
    """Read what `write_identities` wrote.

    Raises:
        InputError: the file is damaged, or of another format.
    """
    try:
        head, *lines = (json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines())
        format_name = head["format"]
        recordings = [_identity(line) for line in lines] if format_name == FORMAT else []
    except (OSError, EOFError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); pretraining writes it") from None
    if format_name != FORMAT:
        raise InputError(f"{path}: format {format_name!r}, this version reads {FORMAT!r}")
    return Identities(recordings, head["level"], head["fingerprints"])


def _names(track: Track) -> tuple[str, ...]:
    """Group and artist of a track, which other tracks may share."""
    # casefold: corpora differ in how they write a name.
    named = {str(name).strip().casefold() for name in (track.group, track.labels.get("artist") or "")}
    return tuple(sorted(named - {"", track.track_id.strip().casefold()}))


def _decoded(paths: dict[str, Path], progress: Progress) -> dict[str, tuple[str, Fingerprint]]:
    """Audio digest and fingerprint by file digest; each file is decoded once, however many tracks have it."""
    cached = {digest: result for digest in paths if (result := _read_cached(digest)) is not None}
    missing = [(digest, path) for digest, path in paths.items() if digest not in cached]
    results = in_threads(lambda pair: _decode(*pair), missing, progress, f"fingerprinting {len(missing)} recordings")
    return cached | {digest: result for (digest, _), result in zip(missing, results, strict=True)}


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); remove it from the corpus") from None


def _cache_path(digest: str) -> Path:
    return cache_folder() / "identities" / str(VERSION) / digest[:2] / digest


def _decode(file_digest: str, path: Path) -> tuple[str, Fingerprint]:
    """Audio digest and fingerprint (P,) of a file, which are also written to the cache."""
    digest, fingerprinter = hashlib.sha256(), None
    for sample_rate, block in decoded_blocks(path):  # (N, channels)
        if fingerprinter is None:
            fingerprinter = Fingerprinter(sample_rate)
            digest.update(f"{sample_rate} {block.shape[1]} ".encode())
        digest.update(np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2").tobytes())
        fingerprinter.add(block)
    fingerprint = fingerprinter.finish() if fingerprinter else np.zeros(0, np.uint32)
    # Another process that decodes the same file writes the same bytes.
    write_atomically(_cache_path(file_digest), digest.digest() + pack(fingerprint))
    return digest.hexdigest(), fingerprint


def _read_cached(digest: str) -> tuple[str, Fingerprint] | None:
    """What `_decode` wrote to the cache for a file digest, or None."""
    path = _cache_path(digest)
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        return content[:_DIGEST_BYTES].hex(), unpack(content[_DIGEST_BYTES:])
    except (zlib.error, ValueError):
        return None  # damaged: the file is decoded again


def _line(identity: Identity) -> dict[str, Any]:
    """One identity as an object that JSON can hold; `_identity` is the inverse."""
    line = {name: getattr(identity, name) for name in ("track_id", "split", "file", "audio", "names")}
    return line | {"fingerprint": base64.b64encode(pack(identity.fingerprint)).decode()}


def _identity(line: dict[str, Any]) -> Identity:
    peaks = unpack(base64.b64decode(line["fingerprint"]))
    return Identity(line["track_id"], line["split"], line["file"], line["audio"], tuple(line["names"]), peaks)
