"""The line of fifths: what it spells sounds as mir_eval hears it, and local keys are found from global ones."""

from __future__ import annotations

import mir_eval
import pytest

from musictf.datasets.line_of_fifths import degree, note, quality, tonic
from musictf.errors import InputError

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)


@pytest.mark.parametrize("fifths", range(-15, 20))
def test_a_note_and_a_degree_sound_as_many_fifths_above_their_origin(fifths):
    semitones = 7 * fifths % 12
    assert mir_eval.chord.pitch_class_to_semitone(note(fifths)) % 12 == semitones
    assert mir_eval.chord.scale_degree_to_semitone(degree(fifths)) % 12 == semitones
    number = int(degree(fifths).lstrip("b#"))
    natural = MAJOR_SCALE[number - 1]
    assert (semitones - natural) % 12 in {0, 1, 2, 3, 9, 10, 11}  # a third is a third, however altered


# The names of the standard's chord types and their semitones, by their intervals: M is a major third, 7 a seventh.
CHORD_TYPES = {
    "M": ("maj", {0, 4, 7}),
    "m": ("min", {0, 3, 7}),
    "o": ("dim", {0, 3, 6}),
    "+": ("aug", {0, 4, 8}),
    "Mm7": ("7", {0, 4, 7, 10}),
    "mm7": ("min7", {0, 3, 7, 10}),
    "MM7": ("maj7", {0, 4, 7, 11}),
    "mM7": ("minmaj7", {0, 3, 7, 11}),
    "o7": ("dim7", {0, 3, 6, 9}),
    "%7": ("hdim7", {0, 3, 6, 10}),
    "+7": ("(3,#5,b7)", {0, 4, 8, 10}),
    "+M7": ("(3,#5,7)", {0, 4, 8, 11}),
}
FIFTHS = {0: 0, 3: -3, 4: 4, 6: -6, 7: 1, 8: 8, 9: -9, 10: -2, 11: 5}


@pytest.mark.parametrize("root", [-4, 0, 7])
@pytest.mark.parametrize("chord_type", CHORD_TYPES)
def test_every_chord_type_has_its_quality(chord_type, root):
    written, semitones = CHORD_TYPES[chord_type]
    assert quality([root + FIFTHS[semitone] for semitone in semitones], root, []) == written
    number, bitmap, _ = mir_eval.chord.encode(f"{note(root)}:{written}")
    assert set(bitmap.nonzero()[0]) == semitones
    assert number % 12 == 7 * root % 12


def test_added_tones_leave_the_chord_what_it_is():
    label = f"C:{quality([0, 4, 1], 0, [degree(2, compound=True), degree(3, compound=True)])}"
    assert label == "C:maj(9,13)"
    assert mir_eval.chord.majmin(["C:maj"], [label]).tolist() == [1]


@pytest.mark.parametrize(
    ("globalkey", "localkey", "expected"),
    [
        ("C", "I", "C"),
        ("C", "vi", "A"),
        ("C", "III", "E"),
        ("c", "III", "Eb"),
        ("c", "vi", "Ab"),
        ("c", "VII", "Bb"),
        ("c", "#vii", "B"),
        ("f#", "V", "C#"),
        ("Eb", "bVI", "Cb"),
        ("Bb", "#iv", "E"),
        ("C", "V/V", "D"),
        ("C", "III/vi", "C"),  # the third of A minor
        ("C", "vi/III", "C#"),  # of E major
        ("C", "VI/i", "Ab"),
        ("C", "III/VI/i", "C"),  # of A flat major
        ("Gb", "iv", "Cb"),
    ],
)
def test_a_local_key_is_relative_to_the_key_that_stands_behind_it(globalkey, localkey, expected):
    assert note(tonic(globalkey, localkey, "")) == expected


@pytest.mark.parametrize(
    ("globalkey", "localkey", "reason"),
    [
        ("H", "I", "here: 'H' is not a global key"),
        ("", "I", "'' is not a global key"),
        ("C", "", "here: '' is not a local key"),
        ("C", "V/", "'V/' is not a local key"),
        ("C", "IIII", "'IIII' is not a local key"),
        ("C", "Vi", "'Vi' is not a local key"),
    ],
)
def test_what_is_no_key_is_refused(globalkey, localkey, reason):
    with pytest.raises(InputError, match=reason):
        tonic(globalkey, localkey, "here")
