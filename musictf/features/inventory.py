"""``musictf data features``: list what the feature store holds, verify it, and delete entries."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from musictf.errors import InputError
from musictf.features.extract import EXTRACTOR_VERSION
from musictf.features.store import extractors, is_intact, prune, store_folder

_LISTED = 10  # broken entries that are named; the others are only counted
_USAGE = "list, verify, or prune followed by one of: NAME, unused_days=N, stale, broken, all"


def features(arguments: Sequence[str]) -> None:
    """List, verify or prune the feature store.

    Raises:
        InputError: the arguments are not understood, or an entry is damaged.
    """
    verb, *rest = arguments or ["list"]
    if verb == "list" and not rest:
        _list()
    elif verb == "verify" and not rest:
        _verify()
    elif verb == "prune" and len(rest) == 1:
        _prune(rest[0])
    else:
        raise InputError(f"data features {' '.join(arguments)!r}: give {_USAGE}")


def _list() -> None:
    table = Table("name", "backbone", "layers", "precision", "tracks", "GiB", "last used", title=str(store_folder()))
    for extractor in extractors():
        about, entries = extractor.about, extractor.entries()
        stale = "" if about.get("version") == EXTRACTOR_VERSION else " (stale: made by another version)"
        sizes = [path.stat().st_size for path in entries]
        used = max((max(path.stat().st_atime, path.stat().st_mtime) for path in entries), default=0.0)
        table.add_row(
            extractor.folder.name[:8],
            f"{about.get('kind')} {about.get('preset', '')} {about.get('backbone', '')}{stale}",
            ",".join(map(str, about.get("layers", []))),
            str(about.get("precision")),
            str(len(entries)),
            f"{sum(sizes) / 2**30:.2f}",
            time.strftime("%Y-%m-%d", time.localtime(used)) if used else "–",
        )
    Console(highlight=False).print(table)


def _verify() -> None:
    paths = [path for extractor in extractors() for path in extractor.entries()]
    broken = [path for path in progress(paths, "verifying features", transient=True) if not is_intact(path)]
    for path in broken[:_LISTED]:
        print(f"broken: {path}")
    if len(broken) > _LISTED:
        print(f"... and {len(broken) - _LISTED} more")
    if broken:
        raise InputError(f"{len(broken)} of {len(paths)} entries are damaged: musictf data features prune broken")
    print(f"{len(paths)} entries are whole")


def _prune(what: str) -> None:
    if what == "stale":
        counts = [
            prune(extractor.folder.name)
            for extractor in extractors()
            if extractor.about.get("version") != EXTRACTOR_VERSION
        ]
        number, size = (sum(column) for column in zip(*counts)) if counts else (0, 0)
    elif what == "broken":
        number, size = prune(broken=True)
    elif what == "all":
        number, size = prune()
    elif what.startswith("unused_days="):
        text = what.partition("=")[2]
        try:
            days = float(text)
        except ValueError:
            raise InputError(f"unused_days={text!r} is not a number of days") from None
        number, size = prune(unused_days=days)
    else:
        number, size = prune(what)
    print(f"deleted {number} files, {size / 2**30:.2f} GiB; deleted features are computed again when needed")
