"""Notes, intervals and keys on the line of fifths, and the chords they spell in Harte syntax.

Conventions: a note is its distance from C in fifths (G 1, F -1, F# 6), an interval the distance of its notes (a third
4, a minor third -3): unlike semitones, fifths distinguish F# from Gb. Numerals and local keys are of the DCML standard:
``III``, ``VI`` and ``VII`` of a minor key are those of its natural scale, lower case is minor, ``V/vi`` is read from
right to left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from musictf.errors import InputError

# Degrees of the scale above the tonic, in fifths.
MAJOR = {"I": 0, "II": 2, "III": 4, "IV": -1, "V": 1, "VI": 3, "VII": 5}
MINOR = MAJOR | {"III": -3, "VI": -4, "VII": -2}
NUMERAL = re.compile(r"([#b]*)([IV]+|[iv]+)")
# Harte's shorthands by the intervals above the root, in fifths (Harte, Sandler, Abdallah, Gómez, ISMIR 2005).
QUALITIES = {
    frozenset({0, 4, 1}): "maj",
    frozenset({0, -3, 1}): "min",
    frozenset({0, -3, -6}): "dim",
    frozenset({0, 4, 8}): "aug",
    frozenset({0, 2, 1}): "sus2",
    frozenset({0, -1, 1}): "sus4",
    frozenset({0, 4, 1, -2}): "7",
    frozenset({0, -3, 1, -2}): "min7",
    frozenset({0, 4, 1, 5}): "maj7",
    frozenset({0, -3, 1, 5}): "minmaj7",
    frozenset({0, -3, -6, -9}): "dim7",
    frozenset({0, -3, -6, -2}): "hdim7",
}


def quality(tones: Collection[int], root: int, added: Sequence[str]) -> str:
    """Harte's shorthand of the tones of a chord, or the list of their degrees, followed by the added degrees.

    Args:
        tones: Tones on the line of fifths, in any order.
        root: The root on the line of fifths.
        added: Degrees to add, as Harte writes them.

    >>> quality([5, 2, -1, 1], 1, []), quality([1, 0, 4], 1, []), quality([0, 4, 1], 0, ["9"])
    ('7', '(4,6)', 'maj(9)')
    >>> quality([2, 4, 1], 0, []), quality([0], 0, [])
    ('(*1,2,3,5)', '(1)')
    """
    intervals = {tone - root for tone in tones}
    shorthand = QUALITIES.get(frozenset(intervals))
    degrees = [] if shorthand else sorted((degree(interval) for interval in intervals), key=_number)
    # Harte implies the root: it is listed only if it is alone, and "*1" says that it is missing.
    listed = [name for name in degrees if name != "1"] or ([] if shorthand else ["1"])
    omitted = [] if 0 in intervals else ["*1"]
    extra = ",".join([*omitted, *listed, *added])
    return (shorthand or "") + (f"({extra})" if extra else "")


def tonic(globalkey: str, localkey: str, where: str) -> int:
    """The tonic of a local key on the line of fifths, C = 0; the local key is relative to the global one.

    ``where`` (``path:line``) begins the message of an error.

    >>> tonic("C", "vi", ""), tonic("a", "III", ""), tonic("Eb", "bVI", ""), tonic("C", "V/vi", "")
    (3, 0, -7, 4)

    Raises:
        InputError: one of the keys does not parse.
    """
    if not re.fullmatch(r"[A-Ga-g](#*|b*)", globalkey):
        raise InputError(f"{where}: {globalkey!r} is not a global key (C, f#, Eb)")
    fifths = "FCGDAEB".index(globalkey[0].upper()) - 1 + _alteration(globalkey[1:])
    is_minor = globalkey[0].islower()
    # V/vi: first to vi of the global key, then to V of that.
    for numeral in reversed(localkey.split("/")):
        match = NUMERAL.fullmatch(numeral)
        if match is None or match[2].upper() not in MAJOR:
            raise InputError(f"{where}: {localkey!r} is not a local key (V, bVI, i/v)")
        fifths += (MINOR if is_minor else MAJOR)[match[2].upper()] + _alteration(match[1])
        is_minor = match[2].islower()
    return fifths


def note(fifths: int) -> str:
    """The name of a note on the line of fifths.

    >>> note(0), note(-1), note(6), note(-3), note(-8)
    ('C', 'F', 'F#', 'Eb', 'Fb')
    """
    return "FCGDAEB"[(fifths + 1) % 7] + _accidentals(fifths)


def degree(fifths: int, compound: bool = False) -> str:
    """Harte's name of an interval above the root in fifths; ``compound`` writes 2, 4 and 6 as 9, 11 and 13.

    >>> degree(4), degree(-3), degree(-9), degree(10), degree(2, compound=True)
    ('3', 'b3', 'bb7', '#6', '9')
    """
    number = (4, 1, 5, 2, 6, 3, 7)[(fifths + 1) % 7]
    return _accidentals(fifths) + str(number + 7 if compound and number in (2, 4, 6) else number)


def _accidentals(fifths: int) -> str:
    count = (fifths + 1) // 7  # seven fifths are a chromatic semitone
    return "#" * count + "b" * -count


def _alteration(accidentals: str) -> int:
    return 7 * (accidentals.count("#") - accidentals.count("b"))


def _number(name: str) -> int:
    return int(name.lstrip("#b"))
