"""Billboard: slots with a title are tracks, and a song is one group however its names are written."""

from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.billboard import Billboard
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "billboard"
INDEX = """id,chart_date,target_rank,actual_rank,title,artist,peak_rank,weeks_on_chart
1,1987-07-11,82,,,,,
3,1961-07-03,56,57,I Don't Mind,James Brown,47,8
4,1971-08-07,32,31,You've Got A Friend,"Roberta Flack,Donny Hathaway",29,12
17,1965-06-19,2,1,"Satisfaction, I Can't Get No",The Rolling Stones,1,14
1012,1965-07-19,3,1,Satisfaction (I Can't Get No),Rolling Stones,1,14
"""
LAB = "0.0\t7.3469387e-2\tN\n7.3469387e-2\t1.8\tE:1/1\n1.8\t3.5\tC:7(#9)\n3.5\t4.5\tA:5(b7)\n\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "billboard-2.0-index.csv").write_text(INDEX)
    for name in ("0003", "0004", "0017", "1012"):
        (tmp_path / "McGill-Billboard" / name).mkdir(parents=True)
        (tmp_path / "McGill-Billboard" / name / "full.lab").write_text(LAB)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "0003.flac", np.zeros(800), 8000)
    return tmp_path


def test_slots_with_a_title_are_tracks(root):
    tracks = Billboard(root=str(root)).all_tracks()
    assert [track.track_id for track in tracks] == ["0003", "0004", "0017", "1012"]
    assert tracks[0].audio == root / "audio" / "0003.flac"
    assert tracks[1].audio == root / "audio" / "0004.mp3"
    assert tracks[1].annotation("artist") == "Roberta Flack,Donny Hathaway"
    chords = tracks[0].annotation("chords")  # the last line holds only white space
    assert chords.labels == ["N", "E:1/1", "C:7(#9)", "A:5(b7)"]
    assert chords.intervals[0, 1] == 7.3469387e-2
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert [scores[name] for name in ("root", "thirds", "majmin", "mirex", "seg")] == pytest.approx([1] * 5)


def test_a_song_in_two_slots_is_one_group_and_one_split(root):
    tracks = Billboard(root=str(root)).all_tracks()
    assert tracks[2].group == tracks[3].group
    assert tracks[2].split == tracks[3].split
    assert len({track.group for track in tracks}) == 3


def test_no_song_is_in_two_splits(root):
    slots = [f"{number},1970-01-01,1,1,Song {number % 60},Singer,1,1" for number in range(1, 181)]
    (root / "billboard-2.0-index.csv").write_text(INDEX.splitlines()[0] + "\n" + "\n".join(slots) + "\n")
    tracks = Billboard(root=str(root)).all_tracks()
    assert len(tracks) == 180
    assert len({(track.group, track.split) for track in tracks}) == 60
    assert {track.split for track in tracks} == {"train", "valid", "test"}


@pytest.mark.parametrize("line", ["3,1961-07-03,1,1,Other,Name,1,1", "x,1961-07-03,1,1,Other,Name,1,1"])
def test_a_number_that_is_none_or_occurs_twice_is_refused(root, line):
    (root / "billboard-2.0-index.csv").write_text(f"{INDEX}{line}\n")
    with pytest.raises(InputError, match="index.csv:7: expected a number that no other slot has"):
        Billboard(root=str(root)).all_tracks()


def test_what_a_copy_lacks_is_named(root):
    tracks = Billboard(root=str(root)).all_tracks()
    (root / "McGill-Billboard" / "0003" / "full.lab").unlink()
    assert len(Billboard(root=str(root)).all_tracks()) == 4  # reported elsewhere, and where it is read
    with pytest.raises(InputError, match="0003/full.lab: cannot be read"):
        tracks[0].annotation("chords")
    (root / "McGill-Billboard").rename(root / "elsewhere")
    with pytest.raises(InputError, match="no folder McGill-Billboard.*data prepare billboard"):
        Billboard(root=str(root)).all_tracks()
    (root / "billboard-2.0-index.csv").unlink()
    with pytest.raises(InputError, match="billboard-2.0-index.csv.*data prepare billboard"):
        Billboard(root=str(root)).all_tracks()


# Every shape of label that the statistics of ChoCo list for this corpus and that looks unlike its neighbours.
SHAPES = [
    "G:maj", "N", "E:1/1", "C:5", "A:11", "Eb:13",
    "Eb:min11", "C:maj13", "E:min13", "Bb:maj6(9)", "E:5(b7)", "Ab:7(#9)",
    "G:sus4(b7,9)", "E:aug(b7)", "D:5(b7)/3", "E:(b3,b7)/b7", "E:sus4(b7,9,13)", "Eb:maj9(13,#11)",
    "B:maj/bb6", "C#:5(b13)", "Ab:(b7)", "C:maj/#4", "A:(11)", "E:(b3,b7,11,9)",
    "Ab:7(b9,b13)", "E:minmaj7/5", "A:(b5,b7,3)/b5", "F:(b5,11)", "F#:min/b8", "G#:min/bb7",
    "Fb:(3,7)", "C#:maj/b4", "D:7/b4", "F#:sus4(b13,b7)", "C:sus2(#11)", "X",
]  # fmt: skip


@pytest.mark.parametrize("label", SHAPES)
def test_labels_of_the_corpus_can_be_scored(label):
    mir_eval.chord.encode(label)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real layout, cut down, is not at hand")
def test_the_real_layout_is_read():
    tracks = {track.track_id: track for track in Billboard(root=str(REAL)).all_tracks()}
    assert "0001" not in tracks
    for name in ("0003", "0035"):
        chords = tracks[name].annotation("chords")
        assert (np.diff(chords.intervals) > 0).all()
        scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
        assert [scores[key] for key in ("root", "thirds", "majmin", "mirex", "seg")] == pytest.approx([1] * 5)
    assert chords.intervals[-1, 1] == 263.366530612
