"""Hainsworth: beats with positions, audio in the container that the copy has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.hainsworth import Hainsworth
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "hainsworth"


def copy(root, *names):
    for folder in ("audio", "annotations/beats", "annotations/tempo"):
        (root / "H_1.0" / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "H_1.0" / "annotations" / "beats" / f"{name}.beats").write_text("0.47\t4\n1.06\t1\n1.63\t2\n")
        soundfile.write(root / "H_1.0" / "audio" / f"{name}.flac", np.zeros(800), 8000)
    return Hainsworth(root=str(root))


def test_excerpts_have_beats_and_downbeats(tmp_path):
    corpus = copy(tmp_path, "hains002", "hains001")
    (tmp_path / "H_1.0" / "annotations" / "tempo" / "hains001.bpm").write_text("101.5\n")
    first, second = corpus.all_tracks()
    assert (first.track_id, first.group, second.track_id) == ("hains001", "hains001", "hains002")
    assert first.audio.is_file()
    np.testing.assert_array_equal(first.annotation("beats").downbeats, [1.06])
    assert first.annotation("tempo") == 101.5
    assert second.annotation("tempo") is None
    assert Hainsworth(root=str(tmp_path / "H_1.0")).all_tracks() == [first, second]


def test_audio_may_be_in_another_container_or_missing(tmp_path):
    corpus = copy(tmp_path, "hains001", "hains002")
    audio = tmp_path / "H_1.0" / "audio"
    (audio / "hains001.flac").rename(audio / "hains001.wav")
    (audio / "hains002.flac").unlink()
    assert [track.audio.name for track in corpus.all_tracks()] == ["hains001.wav", "hains002.flac"]


def test_a_copy_without_beats_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="H_1.0/annotations/beats.*data prepare hainsworth"):
        Hainsworth(root=str(tmp_path)).all_tracks()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real layout, cut down, is not at hand")
def test_the_real_layout_is_read():
    (track,) = Hainsworth(root=str(REAL)).all_tracks()
    assert track.audio.is_file()
    np.testing.assert_array_equal(track.annotation("beats").positions, [2, 3, 4])
