"""Chords, keys, and the chord progressions of songs.

Conventions: a pitch class is an integer 0..11 with C = 0; a degree counts semitones above a chord's root; roman
numerals are relative to the major scale of the tonic in both modes (natural minor is ``i ii° bIII iv v bVI bVII``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
MINOR_SCALE = (0, 2, 3, 5, 7, 8, 10)

# Harte shorthand of each quality and its tones above the root in semitones.
QUALITIES: dict[str, tuple[int, ...]] = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "sus4": (0, 5, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "hdim7": (0, 3, 6, 10),
}
DEGREE_NAMES = {3: "b3", 4: "3", 5: "4", 6: "b5", 7: "5", 10: "b7", 11: "7"}

SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
# Tonics whose major key is written with flats; a minor key is written as its relative major.
FLAT_TONICS = frozenset({0, 1, 3, 5, 8, 10})

# Common progressions of popular music, with borrowed chords (iv, bVI, bVII) and secondary dominants (II7, III7, VI7).
MAJOR_PROGRESSIONS = (
    "I V vi IV", "I vi IV V", "vi IV I V", "I IV V IV", "I IV I V", "ii V I vi", "I iii IV V", "IV I V vi",
    "I bVII IV I", "I III7 vi IV", "I IV iv I", "I II7 IV V", "I vi ii V", "IV V iii vi", "I ii IV V",
    "I V vi iii IV I IV V", "I VI7 II7 V7", "I I7 IV iv", "bVI bVII I I", "vi V IV V", "I iii vi IV",
    "I I IV I V IV I V", "iii vi ii V", "I viio vi IV", "I v IV iv", "I V ii IV",
)  # fmt: skip
MINOR_PROGRESSIONS = (
    "i bVI bIII bVII", "i bVII bVI V", "i iv V i", "i iv bVII bIII", "i bVI iv V", "i iih7 V7 i", "i bII V7 i",
    "i IV i V", "i bIII bVII IV", "bVI bVII i i", "i bVII i v", "i iio V i", "iv i V i", "i bVI bIII V",
    "i bIII iv bVI", "i v bVI bVII", "i iv bVII bIII bVI iih7 V7 i", "i i bVI V7", "iv bVII bIII i",
)  # fmt: skip

_NUMERAL = re.compile(r"(b?)(VII|VI|IV|V|III|II|I)(o|h7|7)?", re.IGNORECASE)
_DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}


@dataclass(frozen=True)
class Chord:
    """A chord: pitch class of its root, quality, and the degree its bass plays (0 = root position)."""

    root: int
    quality: str
    bass_degree: int = 0

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Pitch classes, root first, others ascending."""
        return tuple((self.root + degree) % 12 for degree in QUALITIES[self.quality])

    @property
    def bass(self) -> int:
        """Pitch class of the lowest tone."""
        return (self.root + self.bass_degree) % 12

    def label(self, flats: bool) -> str:
        """The chord in Harte syntax; ``flats`` writes the root with flats instead of sharps.

        Example:
            >>> Chord(10, "min7", bass_degree=10).label(flats=True)
            'Bb:min7/b7'
        """
        inversion = f"/{DEGREE_NAMES[self.bass_degree]}" if self.bass_degree else ""
        return f"{(FLAT_NAMES if flats else SHARP_NAMES)[self.root]}:{self.quality}{inversion}"

    def with_seventh(self, key: Key) -> Chord:
        """The chord with a seventh: major if that is in the scale, except on the dominant; minor otherwise."""
        if self.quality == "maj":
            is_diatonic = (self.root + 11) % 12 in key.scale
            return replace(self, quality="maj7" if is_diatonic and self.root != (key.tonic + 7) % 12 else "7")
        return replace(self, quality={"min": "min7", "dim": "hdim7"}.get(self.quality, self.quality))


@dataclass(frozen=True)
class Key:
    """Tonic (pitch class) and mode."""

    tonic: int
    is_minor: bool

    @property
    def flats(self) -> bool:
        """Whether this key is written with flats."""
        return ((self.tonic + 3) % 12 if self.is_minor else self.tonic) in FLAT_TONICS

    @property
    def name(self) -> str:
        """Name of the key, such as ``C major`` or ``Bb minor``."""
        return f"{(FLAT_NAMES if self.flats else SHARP_NAMES)[self.tonic]} {'minor' if self.is_minor else 'major'}"

    @property
    def scale(self) -> tuple[int, ...]:
        """Pitch classes of the scale, tonic first."""
        return tuple((self.tonic + step) % 12 for step in (MINOR_SCALE if self.is_minor else MAJOR_SCALE))

    def up(self, semitones: int) -> Key:
        """The same mode, transposed."""
        return Key((self.tonic + semitones) % 12, self.is_minor)


def key_of(seed: int, index: int) -> Key:
    """Key of a track: every block of 24 tracks holds each of the 24 keys once."""
    block, position = divmod(index, 24)
    number = int(np.random.default_rng([seed, block, 24]).permutation(24)[position])
    return Key(number % 12, number >= 12)


def chord_of(numeral: str, key: Key) -> Chord:
    """Chord of a roman numeral: capitals major, small letters minor, ``o`` diminished, ``h7`` half-diminished.

    Example:
        >>> chord_of("bVI", Key(0, is_minor=True)).label(flats=True)
        'Ab:maj'
    """
    match = _NUMERAL.fullmatch(numeral)
    if match is None:
        raise ValueError(f"{numeral!r} is not a roman numeral")
    flat, degree, suffix = match.groups()
    root = (key.tonic + _DEGREES[degree.upper()] - len(flat)) % 12
    plain = "maj" if degree.isupper() else "min"
    return Chord(root, {"o": "dim", "h7": "hdim7", "7": "7", None: plain}[suffix])


@dataclass(frozen=True)
class HarmonicStyle:
    """How a song embellishes its progressions: probabilities per chord."""

    sevenths: float
    inversions: float
    suspensions: float
    secondary_dominants: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> HarmonicStyle:
        """Draw a style from the distribution that all songs share."""
        return cls(
            sevenths=float(rng.choice([0.0, 0.15, 0.4, 0.85])),
            inversions=float(rng.choice([0.0, 0.15, 0.35])),
            suspensions=float(rng.choice([0.0, 0.1, 0.25])),
            secondary_dominants=float(rng.choice([0.0, 0.1, 0.25])),
        )


def progression(rng: np.random.Generator, key: Key) -> list[Chord]:
    """Draw one of the common progressions of the key's mode, without embellishment."""
    numerals = str(rng.choice(MINOR_PROGRESSIONS if key.is_minor else MAJOR_PROGRESSIONS)).split()
    return [chord_of(numeral, key) for numeral in numerals]


def embellished(
    rng: np.random.Generator, chords: list[Chord], beats_each: float, key: Key, style: HarmonicStyle
) -> list[tuple[float, Chord]]:
    """A progression with sevenths, suspensions, secondary dominants and inversions.

    Args:
        rng: Source of randomness.
        chords: Plain chords.
        beats_each: Length of each in beats; a chord is divided only if both halves have whole beats.
        key: Decides which major chords take a major seventh.
        style: Probabilities.

    Returns:
        Pairs of length in beats and chord, in order.
    """
    result: list[tuple[float, Chord]] = []
    divides = beats_each >= 2 and (beats_each / 2).is_integer()
    for position, plain in enumerate(chords):
        following = chords[(position + 1) % len(chords)]
        chord = plain.with_seventh(key) if rng.random() < style.sevenths else plain
        if rng.random() < style.inversions:
            chord = replace(chord, bass_degree=int(rng.choice(QUALITIES[chord.quality][1:])))
        if divides and plain.quality in {"maj", "7"} and rng.random() < style.suspensions:
            result += [(beats_each / 2, Chord(chord.root, "sus4")), (beats_each / 2, chord)]
        elif divides and following.root != plain.root and rng.random() < style.secondary_dominants:
            result += [(beats_each / 2, chord), (beats_each / 2, Chord((following.root + 7) % 12, "7"))]
        else:
            result.append((beats_each, chord))
    return result
