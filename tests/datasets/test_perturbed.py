"""Labels after a perturbation, checked by mir_eval, and recordings that are rendered once."""

from __future__ import annotations

import itertools
import math
import pickle

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.annotations import Beats, Chords, read_chords, write_beats, write_chords
from musictf.audio.perturb import PERTURBATIONS
from musictf.datasets import perturbed as module
from musictf.datasets.base import AnnotationFile, Track, split_digest
from musictf.datasets.manifest import READERS
from musictf.datasets.perturbed import LABELS, perturbed, perturbed_tracks, transposed_key, transposed_label
from musictf.errors import InputError
from musictf.files import cache_folder

RATE = 16_000

# Every root spelling, shorthand and decoration of the Harte syntax that mir_eval reads.
_ODD = """
C C# Db D Eb E F Gb G A# Bb B Cb B# E# Fb C## Bbb C:maj A:min G:aug F#:dim Bb:sus4 Eb:sus2 E:sus4(b7) C:7 D:maj7
Ab:min7 F:minmaj7 C#:maj6 Db:min6 B:dim7 G#:hdim7 A:maj9 D#:min9 E:9 A:min11 G:11 F#:maj13 Bb:min13 Cb:13 D:1 E:5
C:maj/3 A:min7/b3 G:7/b7 Eb:maj(9)/5 C:maj(*3) F#:min(*5,b6) A:(1,5,9) Bb:maj(#11) D:maj(2,*3)/2 G:sus4(b7,9)
A:min(4)/b7 E:(3,5) C/5 Db:maj/#4 G:maj(*1)/5
"""
ODD_LABELS = _ODD.split()


@pytest.fixture
def track(tmp_path, white_noise):
    """A track with every label that anything changes, some in files."""
    soundfile.write(tmp_path / "a.wav", white_noise(24_000), RATE, subtype="FLOAT")
    write_chords(tmp_path / "a.lab", Chords(np.array([[0.0, 0.5], [0.5, 1.5]]), ["Bb:min7/b3", "N"]))
    write_beats(tmp_path / "a.beats", Beats(np.array([0.2, 0.7, 1.2]), np.array([1, 2, 3])))
    files = {
        "chords": AnnotationFile(tmp_path / "a.lab", READERS["chords"]),
        "beats": AnnotationFile(tmp_path / "a.beats", READERS["beats"]),
    }
    values = {"onsets": np.array([0.2, 0.45]), "key": "Bb minor", "tempo": 120.0, "tags": ["piano"], "pitch": 60}
    other = (tmp_path / "b.wav",)
    return Track(track_id="a", audio=tmp_path / "a.wav", split="test", versions=other, labels=files | values)


def samples(track):
    return soundfile.read(track.audio, dtype="float32")[0]


@pytest.mark.parametrize("label", ODD_LABELS)
def test_a_chord_moves_its_root_and_keeps_all_else(label):
    root, bitmap, bass = mir_eval.chord.encode(label)
    for semitones in (-6, -2, -1, 1, 2, 6):
        moved = mir_eval.chord.encode(transposed_label(label, semitones))
        assert moved[0] == (root + semitones) % 12
        np.testing.assert_array_equal(moved[1], bitmap)
        assert moved[2] == bass


def test_there_are_fifty_odd_labels_and_no_chord_stays():
    assert len(set(ODD_LABELS)) >= 50
    assert [transposed_label(label, 5) for label in ("N", "X")] == ["N", "X"]


@pytest.mark.parametrize("tonic", [tonic for tonic in mir_eval.key.KEY_TO_SEMITONE if tonic != "x"])
def test_a_key_moves_its_tonic_and_keeps_its_mode(tonic):
    for mode, semitones in itertools.product(("major", "minor", "other"), (-2, 1, 6)):
        before = mir_eval.key.split_key_string(f"{tonic} {mode}")
        moved = transposed_key(f"{tonic} {mode}", semitones)
        mir_eval.key.validate_key(moved)
        assert mir_eval.key.split_key_string(moved) == ((before[0] + semitones) % 12, mode)


@pytest.mark.parametrize(
    ("before", "after"),
    [("C", "D"), ("Cb:min", "C#:min"), ("bb minor", "C minor"), ("F# Major", "G# Major"), ("E♭ minor", "F minor")]
    + [("Am", "Bm"), ("D:mixolydian", "E:mixolydian"), ("X", "X"), ("x", "x"), ("Atonal", "Atonal"), ("-", "-")],
)
def test_keys_in_other_spellings(before, after):
    assert transposed_key(before, 2) == after


@pytest.mark.parametrize("key", ["C minor / F minor", "C klezmer", "E (part)"])
def test_a_key_that_is_not_understood_is_refused_not_left_wrong(key, track):
    track.labels["key"] = key
    with pytest.raises(InputError, match="track a: key .* cannot be transposed"):
        perturbed(track, "pitch", 1)


def test_pitch_changes_pitched_labels_only(track):
    shifted = perturbed(track, "pitch", 2)
    chords = shifted.annotation("chords")
    assert chords.labels == ["C:min7/b3", "N"]
    np.testing.assert_allclose(chords.intervals, track.annotation("chords").intervals)
    assert shifted.labels["key"] == "C minor"
    assert shifted.labels["pitch"] == 62
    for name in ("onsets", "tempo", "tags"):
        assert shifted.labels[name] is track.labels[name]
    np.testing.assert_array_equal(shifted.annotation("beats").times, track.annotation("beats").times)
    assert len(samples(shifted)) == 24_000


def test_stretch_changes_timed_labels_only(track):
    slow = perturbed(track, "stretch", 0.8)
    np.testing.assert_allclose(slow.annotation("chords").intervals, [[0, 0.625], [0.625, 1.875]])
    assert slow.annotation("chords").labels == ["Bb:min7/b3", "N"]
    np.testing.assert_allclose(slow.annotation("beats").times, [0.25, 0.875, 1.5])
    np.testing.assert_array_equal(slow.annotation("beats").positions, [1, 2, 3])
    np.testing.assert_allclose(slow.annotation("onsets"), [0.25, 0.5625])
    assert slow.labels["tempo"] == pytest.approx(96)
    assert (slow.labels["key"], slow.labels["tags"], slow.labels["pitch"]) == ("Bb minor", ["piano"], 60)
    assert len(samples(slow)) == 30_000  # the end of the last chord is the end of the recording


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_beats_stay_on_what_is_struck(tmp_path, rate):
    beats = np.arange(0.5, 3.5, 0.5)
    waveform = np.zeros(4 * RATE, np.float32)
    waveform[np.rint(beats * RATE).astype(int)] = 0.9
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    moved = perturbed(Track(track_id="a", audio=tmp_path / "a.wav", labels={"beats": Beats(beats)}), "stretch", rate)
    found = np.abs(samples(moved))
    for time in moved.annotation("beats").times:
        near = slice(round((time - 0.1) * RATE), round((time + 0.1) * RATE))
        assert abs((near.start + found[near].argmax()) / RATE - time) < 0.010


@pytest.mark.parametrize("name", ["gain", "noise", "mp3", "ogg"])
def test_other_perturbations_keep_every_label(track, name):
    result = perturbed(track, name, PERTURBATIONS[name].amounts[0])
    assert result.labels == track.labels
    assert (result.track_id, result.split, result.versions) == ("a", "test", ())
    assert len(samples(result)) == 24_000
    assert not np.array_equal(samples(result), samples(track))


def test_what_exceeds_full_scale_is_clipped_not_wrapped(track):
    before, after = samples(track), samples(perturbed(track, "gain", 20))
    assert np.abs(before).max() > 0.15
    np.testing.assert_allclose(after, np.clip(10 * before, -1, 1), atol=1e-4)


@pytest.mark.parametrize(("name", "neutral"), [("gain", 0), ("pitch", 0), ("stretch", 1), ("noise", math.inf)])
def test_the_neutral_amount_is_the_track_itself(track, name, neutral):
    assert perturbed(track, name, neutral) is track


def test_a_recording_is_rendered_once(track, monkeypatch):
    first = perturbed(track, "noise", 10)
    written = first.audio.stat().st_mtime_ns
    monkeypatch.setattr(soundfile, "write", None)
    assert perturbed(track, "noise", 10).audio == first.audio
    assert first.audio.stat().st_mtime_ns == written
    assert first.audio.parent == cache_folder() / "perturbed"


def test_the_cache_knows_content_perturbation_amount_and_version(track, tmp_path, monkeypatch, white_noise):
    paths = {perturbed(track, name, amount).audio for name, amount in (("noise", 10), ("noise", 20), ("gain", 10))}
    soundfile.write(track.audio, white_noise(24_000, seed=5), RATE, subtype="FLOAT")  # same name, other sound
    paths.add(perturbed(track, "noise", 10).audio)
    monkeypatch.setattr(module, "RENDERING_VERSION", 99)
    paths.add(perturbed(track, "noise", 10).audio)
    assert len(paths) == 5


def test_one_content_is_one_recording_wherever_it_lies(track, tmp_path):
    copy = tmp_path / "copy.wav"
    copy.write_bytes(track.audio.read_bytes())
    other = Track(track_id="copy", audio=copy)
    assert perturbed(other, "gain", -6).audio == perturbed(track, "gain", -6).audio


def test_an_interrupted_rendering_leaves_no_entry(track, monkeypatch):
    def dies(path, *arguments, **settings):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    before = {path.name for path in (cache_folder() / "perturbed").glob("*.flac")}
    monkeypatch.setattr(soundfile, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        perturbed(track, "gain", -7)
    assert {path.name for path in (cache_folder() / "perturbed").glob("*.flac")} == before


def test_labels_in_files_stay_in_files(track):
    del track.labels["onsets"]  # an array, which no digest covers
    shifted = perturbed(track, "pitch", 1)
    assert split_digest([shifted]) != split_digest([track])
    assert pickle.loads(pickle.dumps(shifted)).annotation("chords").labels == ["B:min7/b3", "N"]
    track.labels["chords"].path.unlink()
    with pytest.raises(InputError, match="a.lab"):
        shifted.annotation("chords")


def test_a_label_that_is_absent_or_none_stays_so(track):
    none = AnnotationFile(track.audio, lambda path: None)  # a key that changes, as corpora say it
    for value in (None, none):
        track.labels["key"] = value
        assert perturbed(track, "pitch", 1).annotation("key") is None
    assert perturbed(Track(track_id="a", audio=track.audio), "pitch", 1).labels == {}


@pytest.mark.parametrize("tempo", ["120", True, [120.0]])
def test_a_tempo_that_is_no_number_is_refused(track, tempo):
    track.labels["tempo"] = tempo
    with pytest.raises(InputError, match="track a: tempo"):
        perturbed(track, "stretch", 0.9)


def test_wrong_names_and_amounts_are_refused(track):
    with pytest.raises(InputError, match="'hiss' is unknown"):
        perturbed(track, "hiss", 1)
    with pytest.raises(InputError, match="pitch=0.5 must be a whole number"):
        perturbed(track, "pitch", 0.5)


def test_tracks_come_in_order_with_a_bar(track, capsys):
    other = Track(track_id="b", audio=track.audio)
    assert [result.track_id for result in perturbed_tracks([track, other], "gain", -6)] == ["a", "b"]
    assert not capsys.readouterr().out


def test_only_known_perturbations_change_labels_and_stereo_becomes_mono(tmp_path, white_noise):
    assert LABELS.keys() <= PERTURBATIONS.keys()
    left, right = white_noise(8000, 1), white_noise(8000, 2)
    soundfile.write(tmp_path / "s.wav", np.column_stack([left, right]), 44_100, subtype="FLOAT")
    result = perturbed(Track(track_id="s", audio=tmp_path / "s.wav"), "gain", -6)
    audio, rate = soundfile.read(result.audio)
    assert (rate, audio.shape) == (44_100, (8000,))
    np.testing.assert_allclose(audio, 10 ** (-6 / 20) * (left + right) / 2, atol=1e-4)


def test_transposed_chords_can_be_written_and_read(track, tmp_path):
    write_chords(tmp_path / "moved.lab", perturbed(track, "pitch", -1).annotation("chords"))
    assert read_chords(tmp_path / "moved.lab").labels == ["A:min7/b3", "N"]
