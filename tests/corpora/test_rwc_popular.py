"""RWC Popular: times are hundredths of a second, positions are counted, and pieces are found on their discs."""

from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.rwc_popular import RWCPopular, read_aist_beats
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "rwc_popular"
BEATS = "4\t4\t384\n49\t49\t48\n93\t93\t96\n137\t137\t144\n182\t182\t384\n"


def copy(root, *pieces, chords=()):
    beats = root / "annotations" / "AIST.RWC-MDB-P-2001.BEAT"
    beats.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        (beats / f"RM-P{piece:03d}.BEAT.TXT").write_text(BEATS)
    folder = root / "annotations" / "AIST.RWC-MDB-P-2001.CHORD" / "RWC_Pop_Chords"
    folder.mkdir(parents=True, exist_ok=True)
    for name in chords:
        (folder / name).write_text("0.000\t0.104\tN\n0.104\t1.858\tAb:min\n1.858\t3\tBb:maj(*3)\n")
    return RWCPopular(root=str(root))


def test_a_song_has_beats_and_chords(tmp_path):
    first, second = copy(tmp_path, 1, 17, chords=["N001-M01-T01.lab"]).all_tracks()
    assert (first.track_id, second.track_id) == ("RM-P001", "RM-P017")
    np.testing.assert_array_equal(first.annotation("beats").times, [0.04, 0.49, 0.93, 1.37, 1.82])
    np.testing.assert_array_equal(first.annotation("beats").positions, [1, 2, 3, 4, 1])
    assert first.annotation("chords").labels == ["N", "Ab:min", "Bb:maj(*3)"]
    assert second.annotation("chords") is None


# From the index of mirdata, which lists the file of each piece: first and last of each disc.
ON_DISC = {1: "m01/1", 16: "m01/16", 17: "m02/1", 32: "m02/16", 33: "m03/1", 48: "m03/16", 49: "m04/1", 64: "m04/16"}
ON_DISC |= {65: "m05/1", 80: "m05/16", 81: "m06/1", 90: "m06/10", 91: "m07/1", 97: "m07/7", 100: "m07/10"}


def test_pieces_are_found_on_their_discs(tmp_path):
    tracks = copy(tmp_path, *ON_DISC).all_tracks()
    for track, name in zip(tracks, ON_DISC.values(), strict=True):
        assert track.audio == tmp_path / "audio" / f"rwc-p-{name}.wav"


@pytest.mark.parametrize("folder", ["RWC-P", "audio/RWC-P", "audio"])
def test_pieces_are_found_in_the_release_of_2026(tmp_path, folder):
    corpus = copy(tmp_path, 17)
    (tmp_path / folder).mkdir(parents=True)
    soundfile.write(tmp_path / folder / "RWC_P017.wav", np.zeros(800), 8000)
    (track,) = corpus.all_tracks()
    assert track.audio == tmp_path / folder / "RWC_P017.wav"


def test_lines_outside_of_any_bar_are_no_beats(tmp_path):
    (tmp_path / "a.TXT").write_text(BEATS + "230\t230\t-1\n250\t250\t48\n")
    beats = read_aist_beats(tmp_path / "a.TXT")
    np.testing.assert_array_equal(beats.times[-2:], [1.82, 2.5])
    np.testing.assert_array_equal(beats.positions[-2:], [1, 2])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4\t4\n", ":1: expected 'start end position'"),
        ("4\t4\t384\nx\t4\t48\n", ":2: expected a number"),
        ("4\t4\t384\n3\t4\t48\n", ":2: beat at 0.03 s does not come after"),
        ("4\t4\t48\n", "no line is a downbeat"),
    ],
)
def test_a_broken_beat_file_is_named(tmp_path, text, reason):
    (tmp_path / "a.TXT").write_text(text)
    with pytest.raises(InputError, match=rf"a.TXT.*{reason}"):
        read_aist_beats(tmp_path / "a.TXT")


def test_a_piece_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="from 001 to 100"):
        copy(tmp_path, 101).all_tracks()


def test_a_copy_without_beats_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="AIST.RWC-MDB-P-2001.BEAT.*data prepare rwc_popular"):
        RWCPopular(root=str(tmp_path)).all_tracks()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real layout, cut down, is not at hand")
def test_the_real_layout_is_read():
    (track,) = RWCPopular(root=str(REAL)).all_tracks()
    assert track.audio.is_file()
    beats, chords = track.annotation("beats"), track.annotation("chords")
    np.testing.assert_array_equal(beats.positions, [1, 2, 3, 4, 1, 2, 3, 4])
    assert beats.times[-1] == 3.15
    assert chords.labels == ["N", "Ab:min", "X", "E:maj", "X", "Bb:maj(*3)", "C:min7"]
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert [scores[name] for name in ("root", "thirds", "triads", "majmin", "mirex", "seg")] == pytest.approx([1] * 6)
