"""GuitarSet: players do not cross splits, JAMS annotations come out as the others do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.guitarset import GuitarSet
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "guitarset"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def observation(time, value, duration=0.0):
    return {"time": time, "duration": duration, "value": value, "confidence": None}


def annotations():
    bars = [(0.5, 3), (1.0, 1), (1.5, 2), (2.0, 3), (2.5, 1)]
    beats = [observation(time, {"position": position, "measure": 1}) for time, position in bars]
    strings = [[observation(time, 60.1) for time in times] for times in ([0.5], [0.25, 1.0], [], [], [], [0.5])]
    return [
        *({"namespace": "note_midi", "data": notes} for notes in strings),
        {"namespace": "beat_position", "data": beats},
        {"namespace": "chord", "data": [observation(0.0, "G:maj", 1.0), observation(1.0005, "N", 1.0)]},
        {"namespace": "chord", "data": [observation(0.0, "G:maj7/1", 1.0), observation(1.5, "D:7", 0.5)]},
        {"namespace": "key_mode", "data": [observation(0.0, "G:major", 2.0)]},
    ]


def write(root, *names, content=None, audio=True):
    for folder in ("annotation", "audio_mono-mic", "audio_mono-pickup_mix"):
        (root / folder).mkdir(exist_ok=True)
    for name in names:
        text = json.dumps({"annotations": annotations() if content is None else content})
        (root / "annotation" / f"{name}.jams").write_text(text)
        if audio:
            soundfile.write(root / "audio_mono-mic" / f"{name}_mic.wav", np.zeros(100), 8000)
            soundfile.write(root / "audio_mono-pickup_mix" / f"{name}_mix.wav", np.zeros(100), 8000)
    return root


def corpus(root, **settings):
    return GuitarSet(root=str(root), **settings)


def test_annotations_of_a_track(tmp_path):
    (track,) = corpus(write(tmp_path, "03_BN3-119-G_comp")).all_tracks()
    assert track.audio == tmp_path / "audio_mono-mic" / "03_BN3-119-G_comp_mic.wav"
    beats = track.annotation("beats")
    assert beats.times.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert beats.positions.tolist() == [3, 1, 2, 3, 1]
    assert track.annotation("key") == "G major"
    assert track.annotation("tempo") == 119.0
    np.testing.assert_array_equal(track.annotation("onsets"), [0.25, 0.5, 1.0])  # strings together, once each
    chords = track.annotation("chords")
    assert chords.labels == ["G:maj", "N"]
    np.testing.assert_allclose(chords.intervals, [[0, 1], [1, 2.0005]], rtol=1e-12)  # rounding is not a gap


def test_performed_chords_are_the_second_annotation_and_a_gap_is_unknown(tmp_path):
    (track,) = corpus(write(tmp_path, "03_BN3-119-G_comp"), chords="performed").all_tracks()
    chords = track.annotation("chords")
    assert chords.labels == ["G:maj7/1", "X", "D:7"]
    np.testing.assert_array_equal(chords.intervals, [[0, 1], [1, 1.5], [1.5, 2]])


@pytest.mark.parametrize("player", range(6))
def test_players_do_not_cross_splits(tmp_path, player):
    write(tmp_path, *(f"0{number}_Jazz1-130-D_{kind}" for number in range(6) for kind in ("comp", "solo")))
    tracks = corpus(tmp_path, player=player).all_tracks()
    expected = {player: "test", (player - 1) % 6: "valid"}
    assert {(int(track.track_id[:2]), track.split) for track in tracks} == {
        (number, expected.get(number, "train")) for number in range(6)
    }
    assert len({track.group for track in tracks}) == 6  # accompaniment and solo belong together


def test_recording_and_playing_are_choices(tmp_path):
    write(tmp_path, "00_BN1-129-Eb_comp", "00_BN1-129-Eb_solo")
    assert [track.track_id for track in corpus(tmp_path, playing="comp").all_tracks()] == ["00_BN1-129-Eb_comp"]
    assert [track.track_id for track in corpus(tmp_path, playing="solo").all_tracks()] == ["00_BN1-129-Eb_solo"]
    assert {track.audio.name[-8:] for track in corpus(tmp_path, recording="mix").all_tracks()} == {"_mix.wav"}
    assert all(track.audio.is_file() for track in corpus(tmp_path, recording="mix").all_tracks())


def test_absent_audio_is_listed_and_an_absent_index_is_named(tmp_path):
    (track,) = corpus(write(tmp_path, "00_BN1-129-Eb_comp", audio=False)).all_tracks()
    assert not track.audio.exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no folder annotation; musictf data prepare guitarset ROOT"):
        corpus(tmp_path / "empty").all_tracks()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"player": 6}, "dataset.player=6 is not one of 0 to 5"),
        ({"recording": "hex"}, "dataset.recording=hex is not one of mic, mix"),
        ({"playing": "both"}, "dataset.playing=both"),
        ({"chords": "heard"}, "dataset.chords=heard is not one of instructed, performed"),
    ],
)
def test_an_unknown_choice_is_refused(tmp_path, settings, reason):
    with pytest.raises(InputError, match=reason):
        corpus(write(tmp_path, "00_BN1-129-Eb_comp"), **settings).all_tracks()


def test_the_key_is_the_one_that_sounds_longest(tmp_path):
    keys = [observation(0, "G:major", 1.0), observation(1, "E:minor", 1.5)]
    write(tmp_path, "00_BN1-129-Eb_comp", content=[{"namespace": "key_mode", "data": keys}])
    (track,) = corpus(tmp_path).all_tracks()
    assert track.annotation("key") == "E minor"


@pytest.mark.parametrize(
    ("label", "data", "reason"),
    [
        ("beats", [{"namespace": "beat_position", "data": [observation(1, {"position": 1})] * 2}], "does not come"),
        ("beats", [], "0 annotations 'beat_position', expected 1"),
        ("chords", [{"namespace": "chord", "data": [observation(0, "G:major", 1)]}] * 2, "'G:major' is not"),
        ("chords", [{"namespace": "chord", "data": [observation(t, "G", 2) for t in (0, 1)]}] * 2, "before"),
    ],
)
def test_what_does_not_parse_names_its_file(tmp_path, label, data, reason):
    (track,) = corpus(write(tmp_path, "00_BN1-129-Eb_comp", content=data)).all_tracks()
    with pytest.raises(InputError, match=f"00_BN1-129-Eb_comp.jams: .*{reason}"):
        track.annotation(label)
    write(tmp_path, "00_BN1_comp")
    with pytest.raises(InputError, match="00_BN1_comp.jams: a track is named"):
        corpus(tmp_path).all_tracks()


@real
def test_the_real_layout_reads():
    (track,) = corpus(REAL).all_tracks()
    assert (track.split, track.group) == ("train", "03_BN3-119-G")
    assert soundfile.info(track.audio).duration == pytest.approx(2, abs=0.01)
    assert track.annotation("chords").labels == ["G:maj"]
    assert corpus(REAL, chords="performed").all_tracks()[0].annotation("chords").labels == ["G:maj7/1"]
    assert track.annotation("beats").positions.tolist() == [2, 3, 4]
    assert track.annotation("key") == "G major"
    np.testing.assert_allclose(track.annotation("onsets"), [0.76123, 1.50729, 1.78062], atol=1e-5)
