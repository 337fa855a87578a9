"""Groups with tracks in several splits, and groups connected by common members.

Conventions: a group is a source track, an artist or an album. If its tracks lie in two or more of ``train``, ``valid``
and ``test``, a score on the test split partly measures memorisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from musictf.datasets.base import SPLITS, Track


def groups_across_splits(tracks: Iterable[Track], of: str = "group") -> dict[str, tuple[str, ...]]:
    """Groups with tracks in more than one split, each with the splits it is in.

    Args:
        tracks: Tracks of all splits.
        of: ``group``, or the name of a label (``artist``); tracks without one are ignored.
    """
    groups: dict[str, set[str]] = {}
    for track in tracks:
        name = track.group if of == "group" else track.labels.get(of)
        if name:
            groups.setdefault(str(name), set()).add(track.split)
    several = ((name, splits) for name, splits in sorted(groups.items()) if len(splits) > 1)
    return {name: tuple(split for split in SPLITS if split in splits) for name, splits in several}


def connected_groups(members: Sequence[Sequence[str]]) -> list[str]:
    """One group per entry, such that entries that share a member, directly or through others, have the same group.

    Example:
        >>> connected_groups([["Ann"], ["Bob", "Ann"], ["Cid"], ["Bob"]])
        ['Ann', 'Ann', 'Cid', 'Ann']
    """
    parent: dict[str, str] = {}  # union-find: the root of a member names its group

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
