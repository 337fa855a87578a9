"""Ballroom: both layouts give the same tracks, dances are genres, and no replica is left."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.ballroom import REPLICAS, Ballroom
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "ballroom"
MIRDATA = ("B_1.0/audio", "B_1.0/annotations/beats", "B_1.0/annotations/tempo")
ARCHIVES = ("BallroomData", "BallroomAnnotations", "BallroomAnnotations/ballroomGroundTruth")


def copy(root, layout, tracks, sound=True):
    audio, beats, tempo = (root / name for name in layout)
    for folder in (beats, tempo):
        folder.mkdir(parents=True, exist_ok=True)
    for dance, name in tracks:
        (audio / dance).mkdir(parents=True, exist_ok=True)
        (beats / f"{name}.beats").write_text("1.86 1\n2.627 2\n3.333 3\n4.1 1\n")
        (tempo / f"{name}.bpm").write_text("84\n")
        if sound:
            soundfile.write(audio / dance / f"{name}.wav", np.zeros(800), 8000)
    return Ballroom(root=str(root))


TRACKS = [("Waltz", "Media-105901"), ("Rumba-American", "Albums-Fire-03"), ("Waltz", "Media-105902")]


@pytest.mark.parametrize("layout", [MIRDATA, tuple(name.removeprefix("B_1.0/") for name in MIRDATA), ARCHIVES])
def test_every_layout_is_read(tmp_path, layout):
    tracks = copy(tmp_path, layout, TRACKS).all_tracks()
    assert [track.track_id for track in tracks] == ["Albums-Fire-03", "Media-105901", "Media-105902"]
    assert all(track.audio.is_file() for track in tracks)
    assert [track.annotation("genre") for track in tracks] == ["Rumba", "Waltz", "Waltz"]
    assert tracks[1].annotation("tempo") == 84.0
    np.testing.assert_array_equal(tracks[1].annotation("beats").positions, [1, 2, 3, 1])
    np.testing.assert_array_equal(tracks[1].annotation("beats").downbeats, [1.86, 4.1])
    assert pickle.loads(pickle.dumps(tracks)) == tracks  # so that workers can read annotations


def test_a_medium_or_an_album_is_in_one_split(tmp_path):
    names = [("Tango", f"Media-{1000 + medium}{number:02d}") for medium in range(40) for number in (1, 2, 3)]
    tracks = copy(tmp_path, MIRDATA, names, sound=False).all_tracks()
    assert len({track.group for track in tracks}) == 40
    assert len({(track.group, track.split) for track in tracks}) == 40
    assert {track.split for track in tracks} == {"train", "valid", "test"}
    (track,) = copy(tmp_path / "album", MIRDATA, [("Jive", "Albums-Latin_Jam2-14x")], sound=False).all_tracks()
    assert track.group.startswith("Albums-Latin_Jam2")


def test_replicas_are_left_out_and_what_they_repeat_stays(tmp_path):
    names = [("Samba", name) for pair in REPLICAS.items() for name in pair]
    corpus = copy(tmp_path, MIRDATA, names, sound=False)
    assert len(REPLICAS) == len(set(REPLICAS.values())) == 13
    assert len(corpus.read_tracks()) == 26
    assert {track.track_id for track in corpus.all_tracks()} == set(REPLICAS.values())
    # 698 files less 13 are the 685 of Beat This!
    assert Ballroom.published["tracks"] - len(Ballroom.known_bad) == 685


def test_tracks_without_audio_are_listed_with_the_dance_that_the_archive_names(tmp_path):
    corpus = copy(tmp_path, ARCHIVES, TRACKS, sound=False)
    assert [track.annotation("genre") for track in corpus.all_tracks()] == [None] * 3
    (tmp_path / "BallroomData" / "allBallroomFiles").write_text("./Waltz/Media-105901.wav\n./Jive/Albums-Fire-03.wav\n")
    tracks = corpus.all_tracks()
    assert [track.annotation("genre") for track in tracks] == ["Jive", "Waltz", None]
    assert tracks[1].audio == tmp_path / "BallroomData" / "Waltz" / "Media-105901.wav"


def test_a_copy_without_beats_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no folder B_1.0/annotations/beats or .*data prepare ballroom"):
        Ballroom(root=str(tmp_path)).all_tracks()
    (tmp_path / "BallroomAnnotations").mkdir()
    (tmp_path / "BallroomAnnotations" / "._Media-1.beats").touch()  # what a Mac leaves behind
    with pytest.raises(InputError, match=r"BallroomAnnotations: no file \*.beats; .*data prepare ballroom"):
        Ballroom(root=str(tmp_path)).all_tracks()


@pytest.mark.parametrize("text", ["", "84\n85\n", "fast\n", "0\n", "-1\n"])
def test_a_broken_tempo_is_named_by_its_file(tmp_path, text):
    (track,) = copy(tmp_path, MIRDATA, TRACKS[:1]).all_tracks()
    (tmp_path / MIRDATA[2] / "Media-105901.bpm").write_text(text)
    with pytest.raises(InputError, match=r"Media-105901.bpm"):
        track.annotation("tempo")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real layout, cut down, is not at hand")
def test_the_real_layout_is_read():
    (track,) = Ballroom(root=str(REAL)).all_tracks()
    assert (track.track_id, track.annotation("genre"), track.annotation("tempo")) == ("Media-105901", "Waltz", 84.0)
    assert track.audio.is_file()
    np.testing.assert_array_equal(track.annotation("beats").times, [1.86, 2.627, 3.333])
