"""DCML: chords, beats and keys of a score on the time line of a rendering at one tempo, without repeats."""

from __future__ import annotations

import csv
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.dcml import DCML
from musictf.datasets.line_of_fifths import MAJOR, MINOR, note, tonic
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "dcml"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")

POSITION = ["quarterbeats", "quarterbeats_all_endings"]
HARMONIES = [*POSITION, "duration_qb", "volta", "label", "globalkey", "localkey", "numeral", "cadence", "phraseend"]
HARMONIES += ["chord_type", "chord_tones", "added_tones", "root", "bass_note"]
MEASURES = ["mc", *POSITION, "timesig", "act_dur", "mc_offset", "volta"]

# A piece in B flat: an upbeat, a phrase that begins under a chord, a modulation, two endings.
CHORDS = (
    "0 0 1.0 - I{ Bb I I - { M 0,4,1 - 0 0",
    "1 1 2.5 - V65 Bb I V - - Mm7 5,2,-1,1 - 1 5",
    "2 2 0.0 - { Bb I - - { - - - - -",
    "7/2 7/2 0.5 - vi.V(64) Bb vi V - - M 1,0,-3 - 1 1",
    "- 4 - 1 Ger6 Bb vi vii - - Ger -4,0,-3,6 - 6 -4",
    "4 7 2.0 2 i(9) Bb vi i - - m 0,-3,1 2 0 0",
    "6 9 0.0 2 |PAC Bb vi - PAC - - - - - -",
    "13/2 19/2 0.5 2 @none Bb vi @none - - - - - - -",
    "7 10 1.0 2 ??? Bb vi - - - - - - - -",
    "8 11 2.0 - V2(2) Bb vi V - - Mm7 -1,5,2,3 - 1 -1",
)
BARS = (
    "1 0 0 3/4 1/4 1/2 -",
    "2 1 1 3/4 3/4 0 -",
    "3 - 4 3/4 3/4 0 1",
    "4 4 7 3/4 3/4 0 2",
    "5 7 10 6/8 3/8 0 -",
    "6 17/2 23/2 6/8 3/8 3/8 -",
)


def table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [row.split(" ") for row in rows]
    assert all(len(row) == len(columns) for row in cells)
    lines = ["\t".join("" if cell == "-" else cell.replace(",", ", ") for cell in row) for row in cells]
    path.write_text("\n".join(["\t".join(columns), *lines]) + "\n")


def write(root, *pieces, chords=CHORDS, bars=BARS):
    for piece in pieces:
        table(root / "harmonies" / f"{piece}.harmonies.tsv", HARMONIES, chords)
        table(root / "measures" / f"{piece}.measures.tsv", MEASURES, bars)
    return root


def only(root, **keys):
    (track,) = DCML(root=str(root), **keys).all_tracks()
    return track


def chords_of(root, *rows):
    return only(write(root, "K1-1", chords=rows)).annotation("chords")


def test_chords_last_until_the_next_one_and_follow_local_keys(tmp_path):
    chords = only(write(tmp_path, "K1-1")).annotation("chords")
    assert list(zip(chords.intervals[:, 0] * 2, chords.labels)) == [
        (0, "Bb:maj"),
        (1, "F:7/3"),  # goes on where a phrase begins
        (3.5, "D:(4,b6)"),  # the six-four of G minor: G and B flat above D
        (4, "Eb:(3,5,#6)"),
        (7, "G:min(9)"),  # goes on at the mark of a cadence
        (9.5, "N"),
        (10, "X"),
        (11, "D:(*1,2,3,5,b7)/b7"),
    ]
    assert chords.intervals[-1, 1] == 6.5
    np.testing.assert_array_equal(chords.intervals[1:, 0], chords.intervals[:-1, 1])
    for label in chords.labels:
        mir_eval.chord.validate_chord_label(label)


def test_beats_are_on_the_same_time_line_and_know_where_their_bar_begins(tmp_path):
    beats = only(write(tmp_path, "K1-1")).annotation("beats")
    assert list(zip(beats.times * 2, beats.positions)) == [
        (0, 3),  # an upbeat ends a bar
        *zip(range(1, 10), [1, 2, 3] * 3),  # both endings sound, one after the other
        (10, 1),  # six eighths are two beats
        (11.5, 2),  # of which the second stands in a measure of its own, after a repeat sign
    ]


def test_an_upbeat_shorter_than_a_beat_has_none(tmp_path):
    write(tmp_path, "K1-1", bars=["1 0 0 4/4 1/8 7/8 -", "2 1/2 1/2 2/2 1 0 -", "3 9/2 9/2 3/8 3/8 0 -"])
    beats = only(tmp_path).annotation("beats")
    assert (beats.times * 2).tolist() == [0.5, 2.5, 4.5, 5, 5.5]
    assert beats.positions.tolist() == [1, 2, 1, 2, 3]


def test_a_bar_that_is_cut_within_a_beat_keeps_the_beat(tmp_path):
    write(tmp_path, "K1-1", bars=["1 0 0 4/4 5/8 0 -", "2 5/2 5/2 4/4 3/8 5/8 -"])
    beats = only(tmp_path).annotation("beats")
    assert (beats.times * 2).tolist() == [0, 1, 2, 3]
    assert beats.positions.tolist() == [1, 2, 3, 4]


def test_tempo_is_in_quarter_notes_a_minute(tmp_path):
    write(tmp_path, "K1-1")
    slow, usual = only(tmp_path, tempo=40), only(tmp_path)
    np.testing.assert_allclose(slow.annotation("beats").times, 3 * usual.annotation("beats").times)
    np.testing.assert_allclose(slow.annotation("chords").intervals, 3 * usual.annotation("chords").intervals)
    assert usual.annotation("beats").times[2] - usual.annotation("beats").times[1] == 0.5
    for tempo in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="dataset.tempo=.*more than 0 quarter notes a minute"):
            DCML(root=str(tmp_path), tempo=tempo).all_tracks()


@pytest.mark.parametrize(("written", "key"), [("C", "C major"), ("f#", "F# minor"), ("b", "B minor")])
def test_the_key_is_that_of_the_piece(tmp_path, written, key):
    rows = [row.replace(" Bb ", f" {written} ") for row in CHORDS]
    assert only(write(tmp_path, "K1-1", chords=rows)).annotation("key") == key
    rows[-1] = rows[-1].replace(f" {written} ", " Ab ")
    assert only(write(tmp_path, "K1-1", chords=rows)).annotation("key") is None


@pytest.mark.parametrize("sixth", ["It -4,0,6", "Fr -4,0,2,6", "Ger -4,0,-3,6"])
@pytest.mark.parametrize("globalkey", ["c", "f#", "eb"])
def test_an_augmented_sixth_is_spelt_from_its_bass_and_sounds_as_its_tones(tmp_path, globalkey, sixth):
    chord_type, tones = sixth.split()
    chords = chords_of(tmp_path, f"0 0 1.0 - label {globalkey} i vii - - {chord_type} {tones} - 6 -4")
    number, bitmap, bass = mir_eval.chord.encode(chords.labels[0])
    origin = tonic(globalkey, "i", "")
    assert number % 12 == 7 * (origin - 4) % 12
    assert bass == 0
    assert "#6" in chords.labels[0]
    assert sounding(number, bitmap) == {7 * (origin + int(tone)) % 12 for tone in tones.split(",")}


def sounding(number, bitmap):
    return {int(number + semitone) % 12 for semitone in bitmap.nonzero()[0]}


def test_of_two_labels_at_one_place_the_later_one_holds(tmp_path):
    rows = ["0 0 0.0 - I C I I - - M 0,4,1 - 0 0", "0 0 1.0 - i C I i - - m 0,-3,1 - 0 0"]
    assert chords_of(tmp_path, *rows).labels == ["C:min"]


def test_a_table_without_endings_has_one_column_of_positions(tmp_path):
    write(tmp_path, "a")
    path = tmp_path / "measures" / "a.measures.tsv"
    table(path, [name for name in MEASURES if "all" not in name], ["1 0 3/4 1/4 1/2 -", "2 1 3/4 3/4 0 -"])
    assert (only(tmp_path).annotation("beats").times * 2).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("- - 1.0 - I C I I - - M 0,4,1 - 0 0", r"tsv:2: expected a fraction \(3/2\), found ''"),
        ("1/0 1/0 1.0 - I C I I - - M 0,4,1 - 0 0", "expected a fraction"),
        ("0 0 - - I C I I - - M 0,4,1 - 0 0", "tsv:2: expected a number, found ''"),
        ("0 0 1.0 - I H I I - - M 0,4,1 - 0 0", "tsv:2: 'H' is not a global key"),
        ("0 0 1.0 - I C - I - - M 0,4,1 - 0 0", "tsv:2: '' is not a local key"),
        ("0 0 1.0 - I C I I - - M 0,x,1 - 0 0", "tsv:2: expected steps on the line of fifths"),
        ("0 0 1.0 - I C I I - - M 0,4,1 - 0 -", "tsv:2: expected steps on the line of fifths"),
        ("0 0 0.0 - { C I - - { - - - - -", "holds no chord"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path, row, reason):
    with pytest.raises(InputError, match=reason):
        chords_of(tmp_path, row)


def test_positions_that_run_backwards_and_signatures_that_are_none_are_refused(tmp_path):
    write(tmp_path, "a", chords=CHORDS[1::-1], bars=["1 0 0 C 1 0 -"])
    track = only(tmp_path)
    with pytest.raises(InputError, match="tsv:2: the interval ends at 0.0 s, before"):
        track.annotation("chords")
    with pytest.raises(InputError, match="tsv:2: 'C' is not a time signature"):
        track.annotation("beats")
    (tmp_path / "harmonies" / "a.harmonies.tsv").write_text("mc\tonset\tglobalkey\n1\t0\tH\n")
    with pytest.raises(InputError, match="has no column 'quarterbeats'"):
        track.annotation("chords")
    with pytest.raises(InputError, match="tsv:2: 'H' is not a global key"):
        track.annotation("key")


def test_movements_stay_together_and_the_folder_does_not_decide_the_split(tmp_path):
    pieces = [f"K{number}-{movement}" for number in range(279, 329) for movement in (1, 2, 3)]
    write(tmp_path / "one" / "sonatas", *pieces)
    alone = DCML(root=str(tmp_path / "one" / "sonatas")).all_tracks()
    within = DCML(root=str(tmp_path / "one")).all_tracks()
    assert [track.track_id for track in within] == [f"sonatas/{piece}" for piece in pieces]
    assert [track.track_id for track in alone] == pieces
    assert [track.split for track in alone] == [track.split for track in within]
    assert {track.group for track in alone} == {piece[:-2] for piece in pieces}
    assert all(len({track.split for track in alone[first : first + 3]}) == 1 for first in range(0, 150, 3))
    assert {track.split for track in alone} == {"train", "valid", "test"}


def test_audio_is_found_by_the_name_of_the_piece(tmp_path):
    write(tmp_path / "corpora" / "a", "K1-1")
    write(tmp_path / "corpora" / "b", "K1-1")
    rendered = tmp_path / "rendered"
    (rendered / "b").mkdir(parents=True)
    soundfile.write(rendered / "b" / "K1-1.flac", np.zeros(100), 8000)
    first, second = DCML(root=str(tmp_path / "corpora"), audio_root=str(rendered)).all_tracks()
    assert first.audio == rendered / "a" / "K1-1.wav"
    assert second.audio == rendered / "b" / "K1-1.flac"
    assert only(tmp_path / "corpora" / "a").audio == tmp_path / "corpora" / "a" / "audio" / "K1-1.wav"
    with pytest.raises(InputError, match="dataset.audio_root: .* is not a folder"):
        DCML(root=str(tmp_path / "corpora"), audio_root=str(tmp_path / "nowhere")).all_tracks()


def test_a_folder_without_harmonies_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file harmonies/\*.harmonies.tsv; musictf data prepare dcml ROOT"):
        DCML(root=str(tmp_path)).all_tracks()


# K. 545, third movement -------------------------------------------------------------------------------------


def real_rows():
    with (REAL / "harmonies" / "K545-3.harmonies.tsv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["chord"]]


@real
def test_the_real_movement_is_read(tmp_path):
    track = only(REAL)
    chords, beats = track.annotation("chords"), track.annotation("beats")
    assert (track.track_id, track.group, track.annotation("key")) == ("K545-3", "K545", "C major")
    assert chords.labels[:7] == ["C:maj/3", "A:min", "D:min/b3", "G:maj", "C:maj/3", "F:maj", "D:min/b3"]
    assert len(chords.labels) == len(real_rows()) == 143
    assert beats.positions[:5].tolist() == [2, 1, 2, 1, 2]
    assert len(beats.times) == 147  # quarter notes
    assert chords.intervals[-1, 1] == beats.times[-1] + 0.5 == 73.5
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert [scores[name] for name in ("root", "thirds", "triads", "tetrads", "mirex", "seg")] == pytest.approx([1] * 6)


@real
def test_every_chord_of_the_real_movement_sounds_as_its_tones_and_stands_on_its_bass():
    for label, row in zip(only(REAL).annotation("chords").labels, real_rows(), strict=True):
        number, bitmap, bass = mir_eval.chord.encode(label)
        origin = tonic(row["globalkey"], row["localkey"], "")
        tones = {7 * (origin + int(tone)) % 12 for tone in row["chord_tones"].split(",")}
        assert sounding(number, bitmap) == tones, row["label"]
        assert (number + bass) % 12 == 7 * (origin + int(row["bass_note"])) % 12, row["label"]


@real
def test_roots_of_the_real_movement_are_those_of_their_numerals():
    """The numeral is relative to the root it is applied to, that to the local key; the tables say neither's note."""
    for label, row in zip(only(REAL).annotation("chords").labels, real_rows(), strict=True):
        if row["chord_type"] == "Ger":
            assert label == "F:(3,5,#6)"
            continue
        applied = "/".join(part for part in (row["relativeroot"], row["localkey"]) if part)
        origin = tonic(row["globalkey"], applied, "")
        is_minor = (row["relativeroot"] or row["localkey"]).split("/")[0].islower()
        bare = row["numeral"].lstrip("b#")
        altered = 7 * (row["numeral"].count("#") - row["numeral"].count("b"))
        assert label.split(":")[0] == note(origin + (MINOR if is_minor else MAJOR)[bare.upper()] + altered), row[
            "label"
        ]
