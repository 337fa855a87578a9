"""The Beatles: every known quirk of the annotations has a defined value, or is refused by its line."""

from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.beatles import Beatles, filled_positions, read_song_beats, read_song_chords, read_song_key
from musictf.datasets.base import derived_split
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "beatles"
COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex", "seg")


def self_scores(chords):
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    return [scores[name] for name in COMPARISONS]


def copy(root, *songs, top="annotations"):
    for album, song in songs:
        for kind, ending, text in (
            ("chordlab", "lab", "0.000 2.612 N\n2.612 11.459 E:7\n"),
            ("beat", "txt", "13.249  2\n13.959  3\n14.416  4\n14.965  1\n"),
            ("keylab", "lab", "0.000\t0.5\tSilence\n0.5\t119.333\tKey\tE\n"),
        ):
            path = root / top / kind / "The Beatles" / album / f"{song}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (root / "audio" / album).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "audio" / album / f"{song}.flac", np.zeros(800), 8000)
    return Beatles(root=str(root))


ALBUM = "01_-_Please_Please_Me"


def test_a_song_has_chords_beats_and_a_key(tmp_path):
    (track,) = copy(tmp_path, (ALBUM, "11_-_Do_You_Want_To_Know_A_Secret")).all_tracks()
    assert track.track_id == f"{ALBUM}/11_-_Do_You_Want_To_Know_A_Secret"
    assert track.audio.is_file()
    assert track.audio.suffix == ".flac"
    assert track.annotation("chords").labels == ["N", "E:7"]
    np.testing.assert_array_equal(track.annotation("beats").positions, [2, 3, 4, 1])
    assert track.annotation("key") == "E major"
    assert track.annotation("artist") == "The Beatles"


@pytest.mark.parametrize("top", ["annotations", ".", "The Beatles Annotations"])
def test_the_archive_may_lie_where_it_was_unpacked(tmp_path, top):
    assert len(copy(tmp_path, (ALBUM, "01_-_Misery"), top=top).all_tracks()) == 1


def test_a_song_without_beats_and_key_is_listed(tmp_path):
    corpus = copy(tmp_path, ("10CD2_-_The_Beatles", "CD2_-_12_-_Revolution_9"))
    for path in [*tmp_path.rglob("beat/**/*.txt"), *tmp_path.rglob("keylab/**/*.lab"), *tmp_path.rglob("*.flac")]:
        path.unlink()
    (track,) = corpus.all_tracks()
    assert set(track.labels) == {"chords", "artist"}
    assert track.audio.name == "CD2_-_12_-_Revolution_9.wav"


def test_an_album_is_in_one_split_and_two_discs_are_one_album(tmp_path):
    songs = [(ALBUM, "a"), (ALBUM, "b"), ("10CD1_-_The_Beatles", "a"), ("10CD2_-_The_Beatles", "b")]
    tracks = copy(tmp_path, *songs).all_tracks()
    assert [track.group for track in tracks] == ["Please_Please_Me"] * 2 + ["The_Beatles"] * 2
    assert [track.split for track in tracks] == [derived_split(track.group) for track in tracks]


def test_every_split_has_an_album():
    albums = [
        "Please_Please_Me", "With_the_Beatles", "A_Hard_Day's_Night", "Beatles_for_Sale", "Help!",
        "Rubber_Soul", "Revolver", "Sgt._Pepper's_Lonely_Hearts_Club_Band", "Magical_Mystery_Tour", "The_Beatles",
        "Abbey_Road", "Let_It_Be",
    ]  # fmt: skip
    held_out = {album: derived_split(album) for album in albums if derived_split(album) != "train"}
    assert held_out == {"A_Hard_Day's_Night": "test", "Help!": "valid", "Let_It_Be": "valid"}


@pytest.mark.parametrize(
    ("text", "intervals", "labels"),
    [
        ("0 0.5 N\n4.6 7 E:min\n7 10 G\n", [[0, 0.5], [0.5, 4.6], [4.6, 7], [7, 10]], ["N", "X", "E:min", "G"]),
        ("0 2.5 C\n2 4 G:7\n", [[0, 2], [2, 4]], ["C", "G:7"]),
        ("0 9 C\n2 4 G:7\n6 8 F\n", [[0, 2], [2, 4], [4, 6], [6, 8]], ["C", "G:7", "X", "F"]),
        ("0 2.001 C\n2 4 G:7\n", [[0, 2.001], [2.001, 4]], ["C", "G:7"]),
    ],
)
def test_gaps_are_unknown_and_overlaps_are_trimmed(tmp_path, text, intervals, labels):
    (tmp_path / "a.lab").write_text(text)
    chords = read_song_chords(tmp_path / "a.lab")
    np.testing.assert_array_equal(chords.intervals, intervals)
    assert chords.labels == labels
    assert self_scores(chords) == pytest.approx([1.0] * len(COMPARISONS))


@pytest.mark.parametrize("text", ["0 2 C\n0 4 G\n", "1 3 C\n0.5 2 G\n"])
def test_an_overlap_that_would_leave_nothing_is_refused(tmp_path, text):
    (tmp_path / "a.lab").write_text(text)
    with pytest.raises(InputError, match="a.lab:2: starts at .* before the previous chord ends"):
        read_song_chords(tmp_path / "a.lab")


@pytest.mark.parametrize(
    ("positions", "filled"),
    [
        ([4, 1, 2, None, 4], [4, 1, 2, 3, 4]),
        ([1, 2, 3, None, None, 2], [1, 2, 3, 3, 1, 2]),
        ([None, 1, 2, 3, 4], [4, 1, 2, 3, 4]),
        ([1, 2, 3, 4, None, None], [1, 2, 3, 4, 1, 2]),
        ([1, 2, 3, None, 2, 3], [1, 2, 3, 1, 2, 3]),  # a waltz: three, not four
        ([None, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3]),
        ([None, None], [None, None]),
    ],
)
def test_new_points_are_counted_from_their_neighbours(positions, filled):
    assert filled_positions(positions) == filled


def test_a_beat_file_with_new_points(tmp_path):
    (tmp_path / "a.txt").write_text("1.0  3\n1.5\tNew Point\n2.0 1\n")
    beats = read_song_beats(tmp_path / "a.txt")
    np.testing.assert_array_equal(beats.times, [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(beats.positions, [3, 3, 1])
    (tmp_path / "a.txt").write_text("1.0 New Point\n")
    assert read_song_beats(tmp_path / "a.txt").positions is None


@pytest.mark.parametrize("line", ["2.0", "2.0 0", "2.0 Old Point", "2.0 1.5", "x 1", "0.5 1"])
def test_a_broken_beat_line_is_named(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"1.0 1\n{line}\n")
    with pytest.raises(InputError, match="a.txt:2: "):
        read_song_beats(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0\t10\tKey\tE\n", "E major"),
        ("0\t10\tKey\tA:minor\n", "A minor"),
        # longest in all, not at a stretch, and not the first
        ("0\t1\tKey\tA\n1\t4\tKey\tE\n4\t8\tKey\tB\n8\t11\tKey\tE\n", "E major"),
        ("0\t90\tSilence\n90\t91\tKey\tDb:minor\n", "Db minor"),
        ("0\t10\tKey\tD:mixolydian\n10\t12\tKey\tD\n", None),
        ("0\t10\tSilence\n", None),
    ],
)
def test_the_key_is_the_one_that_sounds_longest(tmp_path, text, key):
    (tmp_path / "a.lab").write_text(text)
    assert read_song_key(tmp_path / "a.lab") == key
    if key is not None:
        mir_eval.key.validate_key(key)


@pytest.mark.parametrize("line", ["0\t1", "0\t1\tKey", "0\tone\tKey\tE"])
def test_a_broken_key_line_is_named(tmp_path, line):
    (tmp_path / "a.lab").write_text(f"{line}\n")
    with pytest.raises(InputError, match="a.lab:1: "):
        read_song_key(tmp_path / "a.lab")


def test_a_copy_without_chords_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="annotations/chordlab.*data prepare beatles"):
        Beatles(root=str(tmp_path)).all_tracks()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real layout, cut down, is not at hand")
def test_the_real_layout_is_read():
    (track,) = Beatles(root=str(REAL)).all_tracks()
    assert track.audio.is_file()
    chords = track.annotation("chords")
    assert chords.labels == ["N", "X", "E:min", "G"]
    assert self_scores(chords) == pytest.approx([1.0] * len(COMPARISONS))
    assert track.annotation("key") == "E major"
    np.testing.assert_array_equal(track.annotation("beats").positions, [2, 3, 4, 1, 2, 3, 4])
