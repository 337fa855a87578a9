"""Positions in the bar: what was marked is a downbeat, and nothing else is."""

from __future__ import annotations

import pytest

from musictf.datasets.bar_positions import positions_of


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("1000100010", [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]),
        ("100100001000", [1, 2, 3, 1, 2, 3, 4, 5, 1, 2, 3, 4]),  # bars of three and five
        ("00010001", [2, 3, 4, 1, 2, 3, 4, 1]),  # three beats of a bar of four, as the pickup of BWV 846
        ("0100", [3, 1, 2, 3]),  # one bar only
        ("00010", [2, 3, 4, 1, 2]),  # a pickup longer than the bar after it
        ("0000101", [2, 3, 4, 5, 1, 2, 1]),
        ("111", [1, 1, 1]),
    ],
)
def test_positions_count_from_the_downbeat(marks, expected):
    downbeats = [mark == "1" for mark in marks]
    positions = positions_of(downbeats)
    assert positions == expected
    assert [position == 1 for position in positions] == downbeats


def test_without_a_downbeat_there_are_no_positions():
    assert positions_of([False, False]) == [None, None]
    assert positions_of([]) == []
