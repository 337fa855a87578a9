"""Positions in the bar, for corpora that only mark which beats are downbeats."""

from __future__ import annotations

from collections.abc import Sequence


def positions_of(downbeats: Sequence[bool]) -> list[int] | list[None]:
    """Position of each beat in its bar, 1 = downbeat; None for all where no beat is a downbeat.

    Bars may have any length. Beats before the first downbeat are the end of a bar as long as the first whole one, or
    longer if needed: none of them is marked as a downbeat, so none gets position 1.

    >>> positions_of([False, True, False, False, True, False])
    [3, 1, 2, 3, 1, 2]
    """
    marked = [index for index, is_downbeat in enumerate(downbeats) if is_downbeat]
    if not marked:
        return [None] * len(downbeats)
    pickup = marked[0]  # number of beats before the first downbeat
    # Without a second downbeat the only bar is the one that the piece ends in.
    bar = max((marked[1] if len(marked) > 1 else len(downbeats)) - pickup, pickup + 1)
    positions = list(range(bar - pickup + 1, bar + 1))
    for is_downbeat in downbeats[pickup:]:
        positions.append(1 if is_downbeat else positions[-1] + 1)
    return positions
