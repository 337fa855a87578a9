"""Chord and beat files: what is written is what is read, and a broken line is named by its number."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest

from musictf.annotations import (
    Beats,
    Chords,
    Sections,
    assemble_beats,
    assemble_chords,
    key_name,
    longest_key,
    read_beats,
    read_chords,
    read_onsets,
    read_sections,
    read_tempo,
    write_beats,
    write_chords,
    write_sections,
)
from musictf.errors import InputError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "annotation.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_chords_survive_the_round_trip(tmp_path):
    chords = Chords(np.array([[0.0, 1.234567], [1.234567, 2.5], [2.5, 4.0]]), ["N", "C:maj/3", "F#:min7(b5)"])
    write_chords(tmp_path / "a.lab", chords)
    again = read_chords(tmp_path / "a.lab")
    np.testing.assert_array_equal(again.intervals, chords.intervals)
    assert again.labels == chords.labels
    intervals, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "a.lab"))  # and others read the same
    np.testing.assert_array_equal(intervals, chords.intervals)
    assert labels == chords.labels


def test_any_white_space_comments_and_a_byte_order_mark_are_read(file):
    chords = read_chords(file("\ufeff# from a friend\n\n0   1\tC:maj \n 1 2 A:min\n"))
    assert chords.labels == ["C:maj", "A:min"]
    np.testing.assert_array_equal(chords.intervals, [[0, 1], [1, 2]])


def test_a_gap_is_a_chord_that_nobody_knows(file):
    chords = read_chords(file("0.5 1 C:maj\n2 3 G:maj\n"))
    np.testing.assert_array_equal(chords.intervals, [[0.5, 1], [1, 2], [2, 3]])
    assert chords.labels == ["C:maj", "X", "G:maj"]


def test_rounding_in_the_file_is_neither_gap_nor_overlap(file):
    chords = read_chords(file("0 1.001 C:maj\n1 2 G:maj\n2.0015 3 N\n"))
    np.testing.assert_array_equal(chords.intervals, [[0, 1.001], [1.001, 2], [2, 3]])
    assert chords.labels == ["C:maj", "G:maj", "N"]


def test_chords_score_perfectly_against_themselves(file):
    chords = read_chords(file("0 1.001 C:maj\n1 2 G:7\n3 4 A:min\n"))
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert scores["majmin"] == 1.0


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("0 1 C:maj\n1 2\n", 2, "expected 'start end label'"),
        ("0 one C:maj\n", 1, "expected a number, found 'one'"),
        ("0 inf C:maj\n", 1, "finite"),
        ("nan 1 C:maj\n", 1, "finite"),
        ("0 1 C:maj\n\n2 2 C:maj\n", 3, "ends at 2.0 s"),
        ("0 1 C:maj\n3 2 C:maj\n", 2, "ends at 2.0 s, before its start at 3.0 s"),
        ("0 1 C:maj\n0.9 2 C:maj\n", 2, "before the previous chord ends"),
        ("0 1 H:maj\n", 1, "'H:maj' is not a chord"),
        ("0 1 C:maj\n1 2 C:major seventh\n", 2, "not a chord"),
    ],
)
def test_a_broken_chord_line_is_named(file, text, line, reason):
    path = file(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_chords(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "intervals"),
    [
        ("0 2.5 C\n2 4 G:7\n", [[0, 2], [2, 4]]),
        ("0 9 C\n2 4 G:7\n", [[0, 2], [2, 4]]),
        ("0 1 C\n0.9985 2 G:7\n", [[0, 1], [1, 2]]),  # rounding, not an overlap
    ],
)
def test_overlaps_are_trimmed_where_that_is_asked_for(file, text, intervals):
    chords = read_chords(file(text), overlaps="trim")
    np.testing.assert_array_equal(chords.intervals, intervals)
    assert chords.labels == ["C", "G:7"]
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert (scores["majmin"], scores["seg"]) == (1.0, 1.0)


@pytest.mark.parametrize("text", ["0 2 C\n0 4 G\n", "1 3 C\n0.5 2 G\n"])
def test_no_chord_is_trimmed_to_nothing(file, text):
    with pytest.raises(InputError, match=":2: starts at"):
        read_chords(file(text), overlaps="trim")


def test_rows_from_elsewhere_are_named_in_messages():
    assert assemble_chords([("here", 0, 1, "C"), ("there", 2, 3, "G")], "a").labels == ["C", "X", "G"]
    with pytest.raises(InputError, match="^there: 'H' is not a chord"):
        assemble_chords([("here", 0, 1, "C"), ("there", 1, 2, "H")], "a")
    with pytest.raises(InputError, match="^there: beat at 1 s"):
        assemble_beats([("here", 1, None), ("there", 1, None)], "a")
    with pytest.raises(InputError, match="^all: 1 of 2 beats"):
        assemble_beats([("here", 1, 1), ("there", 2, None)], "all")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("E", "E major"),
        ("C:maj", "C major"),
        ("C#:min", "C# minor"),
        ("A:minor", "A minor"),
        ("Bb major", "Bb major"),
        ("Cb:minor", "B minor"),
        ("E#:min", "F minor"),
        ("E:mixolydian", None),
        ("N", None),
        ("", None),
        ("minor", None),
        ("C:", "C major"),
    ],
)
def test_keys_are_named_as_mir_eval_names_them(label, name):
    assert key_name(label) == name
    if name is not None:
        mir_eval.key.validate_key(name)


def test_the_longest_key_is_longest_in_all():
    assert longest_key([(0, 4), (4, 9), (9, 12)], ["E", "B:min", "E:major"]) == "E major"
    assert longest_key([(0, 4), (4, 9)], ["E", "B:dorian"]) is None
    assert longest_key([], []) is None


def test_a_tempo_is_one_number(file):
    assert read_tempo(file("101.5\n")) == 101.5
    for text, reason in [("", "found 0 lines"), ("84\n85\n", "found 2 lines"), ("0\n", ":1: a tempo is more than 0")]:
        with pytest.raises(InputError, match=reason):
            read_tempo(file(text))


def test_a_chord_file_without_chords_is_refused(file):
    with pytest.raises(InputError, match="holds no chord"):
        read_chords(file("# nothing yet\n"))


@pytest.mark.parametrize("positions", [None, np.array([3, 4, 1, 2])])
def test_beats_survive_the_round_trip(tmp_path, positions):
    beats = Beats(np.array([0.123456, 0.5, 1.0, 1.75]), positions)
    write_beats(tmp_path / "a.beats", beats)
    again = read_beats(tmp_path / "a.beats")
    np.testing.assert_array_equal(again.times, beats.times)
    if positions is None:
        assert again.positions is None
        assert again.downbeats is None
    else:
        np.testing.assert_array_equal(again.positions, positions)
        np.testing.assert_array_equal(again.downbeats, [1.0])


def test_an_empty_beat_file_means_no_beats(file):
    beats = read_beats(file(""))
    assert beats.times.shape == (0,)
    assert beats.downbeats is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.5\n0.5\n", r":2: beat at 0.5 s does not come after"),
        ("1\n0.5\n", r":2: .*0.5 s does not come after the one at 1.0 s"),
        ("0.5\t1\n1.0\n", "1 of 2 beats have a position"),
        ("half\n", ":1: expected a number"),
        ("0.5 first\n", ":1: expected a number"),
        ("nan\n", ":1: expected a finite number"),
        ("0.5 1.5\n", ":1: .*position"),
        ("0.5 0\n", ":1: .*position"),
    ],
)
def test_a_broken_beat_file_is_refused(file, text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read_beats(file(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_chords, read_beats])
def test_files_that_are_no_text_are_refused(tmp_path, read):
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "missing.lab")
    (tmp_path / "binary.lab").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="binary.lab: cannot be read"):
        read(tmp_path / "binary.lab")


@pytest.mark.parametrize(
    ("read", "text"), [(read_beats, "0.5\n31000\n"), (read_onsets, "31000\n"), (read_chords, "0 31000 C:maj\n")]
)
def test_milliseconds_are_not_taken_for_seconds(tmp_path, read, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a.txt:\d: 31000.0 s is not a time in a recording"):
        read(path)


def test_sections_survive_the_round_trip(tmp_path):
    sections = Sections(np.array([[0.5, 10.25], [12.0, 20.0]]), ["A", "verse 2"])
    write_sections(tmp_path / "a.lab", sections)
    again = read_sections(tmp_path / "a.lab")
    assert np.array_equal(again.intervals, sections.intervals)
    assert again.labels == sections.labels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 5 A\n4 6 B\n", ":2: sections must ascend"),
        ("3 2 A\n", ":1: sections"),
        ("", "holds no section"),
        ("0 A\n", ":1"),
    ],
)
def test_sections_that_are_none_are_refused(tmp_path, text, reason):
    (tmp_path / "a.lab").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_sections(tmp_path / "a.lab")
