"""One-bar rhythms, as text.

A pattern has one character a step and divides the bar into equal steps. ``-`` holds the previous note, ``.`` is a rest.

* Chords: ``x`` all tones together, ``0``…``9`` one tone of the chord, counted from the lowest.
* Bass: ``r`` the chord's bass, ``f`` its fifth, ``t`` its third, ``o`` the bass an octave up, ``a`` an approach to
  the next chord.
* Drums: ``1``…``9`` a stroke, by loudness.
"""

from __future__ import annotations

BLOCK_PATTERNS: dict[str, tuple[str, ...]] = {
    "4/4": (
        "x-------", "x---x---", "x-x-x-x-", "xxxxxxxx", "..x...x.", ".x.x.x.x", "x--x--x-", "x..x....", "...x..x.",
        "x-.x.-x-", "x.xx.xx.", ".x-.x-x-", "x--x----", "x-..x-..", "x.x.....x.x.....", "x..x..x...x.x...",
        "..x-..x-", "x-x-.x-.", "....x-..", "x..xx..x",
    ),
    "3/4": ("x-----", "x-x-x-", "..x-x-", "..x.x.", "x--x--", "x-..x-", ".xx.xx", "x--xx-"),
    "6/8": ("x-----", "x--x--", "x-xx-x", ".xx.xx", "xxxxxx", "x--..x", "..x..x"),
}  # fmt: skip
BROKEN_PATTERNS: dict[str, tuple[str, ...]] = {
    "4/4": (
        "01210121", "02120212", "0123", "01232123", "0-1-2-1-", "0120120120120123", "2101", "03132313", "0-12-012",
        "0x.x0x.x", "0.1.2.3.", "3210", "0123432101234321", "0-x-1-x-", "02413021",
    ),
    "3/4": ("012121", "0x-x--", "012321", "0-1-2-", "021202", "0xx", "012"),
    "6/8": ("012012", "012321", "0-12-1", "0xx1xx", "021021", "210210"),
}  # fmt: skip
BASS_PATTERNS: dict[str, tuple[str, ...]] = {
    "4/4": (
        "r-------", "r---f---", "r---r---", "r-----r-", "r--r--r-", "rrrrrrrr", "r-f-r-f-", "r-t-f-a-", "r--f..r-",
        "r.r.o.r.", "r..r..f.", "r-----fa", "rorororo", "..r...r.", "r..ro.fr", "r---..fa", "r-f-o-a-", "r--r-f-a",
        "r..r....r.r.f...",
    ),
    "3/4": ("r-----", "r---f-", "r-f-f-", "r-t-f-", "r--r--", "r-r-a-"),
    "6/8": ("r-----", "r--f--", "r--r--", "r-fr-f", "r-rf-a", "r..f.r"),
}  # fmt: skip

KICK, SNARE, HAT, OPEN_HAT, RIDE, TOM, CRASH = range(7)
# Kick, snare and cymbal of a bar; the cymbal is a hat or the ride.
DRUM_PATTERNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "4/4": (
        ("8.......8.......", "....8.......8...", "6.4.6.4.6.4.6.4."),
        ("8.....8.8.......", "....8.......8...", "6.4.6.4.6.4.6.4."),
        ("8..8......8.....", "....8..3.3..8...", "6345634563456345"),
        ("8...8...8...8...", "....7.......7...", "..6...6...6...6."),
        ("8.......8.8.....", "........8.......", "6...5...6...5..."),
        ("8.........8.....", "....8.......8..3", "6.6.6.6.6.6.6.6."),
        ("........8.......", "........7.......", "..6...6...6...6."),
        ("8..8..8...8.8...", "....8.......8...", "6.4.6.4.6.4.6.46"),
        ("8.....8..8......", "....8..8....8.8.", "6.3.6.3.6.3.6.3."),
        ("5...5...5...5...", "....3.......3...", "6...6.4.6...6.4."),
        ("8..8..8.8..8..8.", "......6.....6...", "4545454545454545"),
        ("8...............", "........8.......", "6.......6......."),
        ("8...............", "................", "..5...5...5...5."),
    ),
    "3/4": (
        ("8...........", "....6...6...", "5...5...5..."),
        ("8...........", "........8...", "6.4.6.4.6.4."),
        ("8.....8.....", "....8...8.8.", "6.4.6.4.6.4."),
        ("8.......4...", "....4.......", "6...6.3.6..."),
    ),
    "6/8": (
        ("8.........4.", "......8.....", "6.4.4.6.4.4."),
        ("8...4.....4.", "......8.....", "6.4.4.6.4.4."),
        ("8...........", "......7...3.", "6...4.6...4."),
        ("8.....4.....", "....5.....5.", "5.5.5.5.5.5."),
    ),
}
# Snare and toms over the last half of a bar.
FILLS: dict[str, tuple[tuple[str, str], ...]] = {
    "4/4": (
        ("........7.7.5.5.", "............7.7."), ("........56677...", "............8888"),
        ("..............88", "........6..6..6."), ("........8..8..8.", "................"),
    ),
    "3/4": (("......6.7.8.", "............"), ("............", "........7788")),
    "6/8": (("......678...", ".........888"), ("..........88", "......7.7...")),
}  # fmt: skip


def steps(pattern: str, beats_per_bar: int) -> list[tuple[float, float, str]]:
    """Onset and length in beats, and the character, of each note of a pattern.

    Example:
        >>> steps("x-.f", beats_per_bar=4)
        [(0.0, 2.0, 'x'), (3.0, 1.0, 'f')]
    """
    step = beats_per_bar / len(pattern)
    notes: list[tuple[float, float, str]] = []
    for number, character in enumerate(pattern):
        if character in ".-":
            continue
        rest = pattern[number + 1 :]
        held = len(rest) - len(rest.lstrip("-"))
        notes.append((number * step, (1 + held) * step, character))
    return notes
