"""Who stands on both sides of a split, and which groups belong together.

Conventions: a group (source track, artist, album) straddles a split if its tracks lie in two or more of ``train``,
``valid`` and ``test``; then a score on the test split partly measures how well it was remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from musictf.datasets.base import SPLITS, Track


def straddling(tracks: Iterable[Track], of: str = "group") -> dict[str, tuple[str, ...]]:
    """Groups with tracks in more than one split, each with the splits it is in.

    Args:
        tracks: Tracks of all splits.
        of: ``group``, or a label that names who made them (``artist``); tracks without one are left out.
    """
    found: dict[str, set[str]] = {}
    for track in tracks:
        name = track.group if of == "group" else track.labels.get(of)
        if name:
            found.setdefault(str(name), set()).add(track.split)
    torn = ((name, splits) for name, splits in sorted(found.items()) if len(splits) > 1)
    return {name: tuple(split for split in SPLITS if split in splits) for name, splits in torn}


def joined(members: Sequence[Sequence[str]]) -> list[str]:
    """A group for each entry such that entries that share a member, directly or through others, share the group.

    Example:
        >>> joined([["Ann"], ["Bob", "Ann"], ["Cid"], ["Bob"]])
        ['Ann', 'Ann', 'Cid', 'Ann']
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for names in members:
        roots = sorted({root(name) for name in names})
        for other in roots[1:]:
            parent[other] = roots[0]
    return [root(names[0]) for names in members]
