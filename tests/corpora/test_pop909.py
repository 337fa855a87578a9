"""POP909: annotations of the recording hold for a rendering, and the arrangement has bars too."""

from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.pop909 import POP909
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "pop909"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, *songs):
    for song in songs:
        folder = root / "POP909" / song
        folder.mkdir(parents=True)
        (folder / "beat_audio.txt").write_text("0.5\t3.0\n1.0\t1.0\n1.5\t2.0\n2.0\t3.0\n2.5\t1.0\n")
        (folder / "beat_midi.txt").write_text("0.1 0.0 0.0\n0.6 1.0 1.0\n1.1 0.0 0.0\n1.6 1.0 0.0\n2.1 1.0 1.0\n")
        (folder / "chord_audio.txt").write_text("0.0\t1.0\tN\n1.0\t3.0\tG:sus4(b7,9)\n")
        (folder / "key_audio.txt").write_text("0.0\t3.0\tGb:min\n")
    return root


def test_annotations_of_a_song(tmp_path):
    write(tmp_path, "001", "002")
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "001.wav", np.zeros(100), 8000)
    first, second = POP909(root=str(tmp_path)).all_tracks()
    assert (first.track_id, first.audio) == ("001", tmp_path / "audio" / "001.wav")
    assert first.annotation("beats").positions.tolist() == [3, 1, 2, 3, 1]
    assert first.annotation("chords").labels == ["N", "G:sus4(b7,9)"]
    assert first.annotation("key") == "Gb minor"
    assert first.group != second.group
    assert not second.audio.exists()


def test_beats_of_the_arrangement_start_bars_in_the_third_column(tmp_path):
    (track,) = POP909(root=str(write(tmp_path, "001")), beats="midi").all_tracks()
    beats = track.annotation("beats")
    assert beats.times.tolist() == [0.1, 0.6, 1.1, 1.6, 2.1]
    assert beats.positions.tolist() == [3, 1, 2, 3, 1]


def test_the_key_is_the_one_that_sounds_longest(tmp_path):
    (track,) = POP909(root=str(write(tmp_path, "001"))).all_tracks()
    path = tmp_path / "POP909" / "001" / "key_audio.txt"
    path.write_text("0\t2\tG:min\n2\t5\tA:min\n5\t7\tG:min\n")
    assert track.annotation("key") == "G minor"
    path.write_text("0\t2\tG:min\n2\t5\tA:min\n")
    assert track.annotation("key") == "A minor"
    path.write_text("0\tG:min\n")
    with pytest.raises(InputError, match="key_audio.txt:1: expected 3 columns"):
        track.annotation("key")


def test_the_inner_folder_will_do_and_mistakes_are_named(tmp_path):
    write(tmp_path, "001")
    (tmp_path / "POP909" / "index.xlsx").touch()
    assert len(POP909(root=str(tmp_path / "POP909")).all_tracks()) == 1
    with pytest.raises(InputError, match="dataset.beats=score is not one of audio, midi"):
        POP909(root=str(tmp_path), beats="score").all_tracks()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no song folder \(001.*; musictf data prepare pop909 ROOT"):
        POP909(root=str(tmp_path / "empty")).all_tracks()


@real
def test_recording_and_arrangement_of_the_real_song_agree_on_beats_and_downbeats():
    ((heard,), (written,)) = (POP909(root=str(REAL), beats=source).all_tracks() for source in ("audio", "midi"))
    beats, reference = written.annotation("beats"), heard.annotation("beats")
    assert reference.positions[:6].tolist() == [3, 4, 1, 2, 3, 4]
    assert mir_eval.beat.f_measure(reference.times, beats.times) > 0.9
    assert mir_eval.beat.f_measure(reference.downbeats, beats.downbeats) > 0.9
    assert heard.annotation("key") == "G minor"
    assert heard.annotation("chords").labels[:3] == ["N", "G:min", "C:min"]
