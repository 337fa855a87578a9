"""The synthetic corpus: its truth by outside oracles (librosa, mir_eval), and that it is made once and the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import librosa
import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.datasets.base import SPLITS, split_digest
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.synthesis import composition, files, harmony, patterns, rendering, synthetic
from musictf.synthesis.synthetic import Synthetic

SAMPLE_RATE = 16000
SECONDS = 12.0
FEW = {"seconds": SECONDS, "workers": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def songs():
    return [composition.compose(0, index, 40.0) for index in range(160)]


@pytest.fixture(scope="module")
def recordings():
    """Eight songs with one other version each: (song, first waveform, second waveform)."""
    found = []
    for index in range(8):
        song = composition.compose(3, index, SECONDS)
        (_, first), (_, second) = rendering.recorded_versions(song, 3, index, SECONDS, SAMPLE_RATE, num_versions=1)
        found.append((song, first, second))
    return found


def contents(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def chroma(waveform):
    return librosa.feature.chroma_stft(y=waveform, sr=SAMPLE_RATE, n_fft=4096, hop_length=1024)


def lives(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def tone_share(song, values, shift_frames=0):
    """Mean share of chroma energy on the annotated chord tones, where a chord sounds."""
    times = np.arange(values.shape[1]) * 1024 / SAMPLE_RATE
    shares = []
    for (start, end), label in zip(song.chords.intervals, song.chords.labels, strict=True):
        root, bitmap, _ = mir_eval.chord.encode(label)
        frames = np.flatnonzero((times >= start + 0.1) & (times < end)) if root >= 0 else []
        for frame in frames:
            column = values[:, (frame + shift_frames) % values.shape[1]]
            shares.append(column[np.roll(bitmap, root) > 0].sum() / (column.sum() + 1e-9) - bitmap.sum() / 12)
    return float(np.mean(shares))


# --- how it is made


def test_the_same_corpus_has_the_same_bytes(cache, monkeypatch):
    first = contents(Synthetic(num_tracks=3, **FEW).all_tracks()[0].audio.parents[1])
    monkeypatch.setenv("MUSICTF_CACHE", str(cache / "again"))
    assert contents(Synthetic(num_tracks=3, **FEW).all_tracks()[0].audio.parents[1]) == first
    assert len([name for name in first if name.endswith(".wav")]) == 3


def test_a_larger_corpus_contains_the_smaller_one_and_makes_only_what_is_missing(cache, monkeypatch):
    small = Synthetic(num_tracks=2, **FEW).all_tracks()
    written = {track.audio: track.audio.stat().st_mtime_ns for track in small}
    large = Synthetic(num_tracks=4, **FEW).all_tracks()
    assert [track.track_id for track in large] == [f"synthetic_{index:04d}" for index in range(4)]
    assert large[:2] == small
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert Synthetic(num_tracks=2, **FEW).all_tracks() == small
    # Made alone, the last track is the same: it depends on its number and not on those before it.
    recipe = files.Recipe(seed=0, seconds=SECONDS, sample_rate=SAMPLE_RATE, num_versions=0)
    files.make_tracks(cache / "alone", recipe, [3])
    assert (cache / "alone" / "audio" / "synthetic_0003.wav").read_bytes() == large[3].audio.read_bytes()


def test_an_interrupted_generation_goes_on_where_it_stopped(monkeypatch):
    corpus = Synthetic(num_tracks=4, **FEW)
    compose, started = files.compose, []

    def dies_at_the_third(seed, index, seconds):
        started.append(index)
        if len(started) == 3:
            raise KeyboardInterrupt
        return compose(seed, index, seconds)

    monkeypatch.setattr(files, "compose", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        corpus.all_tracks()
    assert not (corpus.folder / "manifest.jsonl").exists()
    assert len(corpus.all_tracks()) == 4
    assert sorted(started[:2] + started[3:]) == [0, 1, 2, 3]


def test_what_another_process_has_made_meanwhile_is_not_made_again(cache, monkeypatch):
    recipe = files.Recipe(seed=0, seconds=SECONDS, sample_rate=SAMPLE_RATE, num_versions=0)
    files.make_tracks(cache / "shared", recipe, [1])
    compose, made = files.compose, []
    monkeypatch.setattr(files, "compose", lambda *where: made.append(where[1]) or compose(*where))
    assert files.make_tracks(cache / "shared", recipe, [0, 1, 2]) == 3
    assert made == [0, 2]


def test_progress_is_shown_on_stderr_by_rank_zero_and_only_when_there_is_work(capsys, monkeypatch):
    Synthetic(num_tracks=1, **FEW).all_tracks()
    shown = capsys.readouterr()
    assert "making 1 synthetic tracks" in shown.err
    assert shown.out == ""
    Synthetic(num_tracks=1, **FEW).all_tracks()
    monkeypatch.setenv("RANK", "1")
    Synthetic(num_tracks=2, **FEW).all_tracks()
    assert capsys.readouterr().err == ""


def test_a_lost_file_is_made_again():
    corpus = Synthetic(num_tracks=2, **FEW)
    before = contents(corpus.all_tracks()[0].audio.parents[1])
    (corpus.folder / "audio" / "synthetic_0001.wav").unlink()
    corpus.all_tracks()
    assert contents(corpus.folder) == before


def test_processes_make_the_same_bytes_and_leave_no_temporary_file(cache, monkeypatch):
    monkeypatch.setattr(synthetic, "WORTH_PROCESSES", 0)
    corpus = Synthetic(num_tracks=3, seconds=10.0, workers=2)
    folder = corpus.all_tracks()[0].audio.parents[1]
    files.make_tracks(cache / "alone", files.Recipe(0, 10.0, SAMPLE_RATE, 0), range(3))
    alone, together = contents(cache / "alone"), contents(folder)
    together.pop("manifest.jsonl")
    assert together == alone
    assert not [name for name in together if name.endswith(".tmp")]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc which processes live")
def test_children_end_with_a_parent_that_is_killed(cache):
    code = (
        "from musictf.synthesis.synthetic import Synthetic; import multiprocessing, os, signal, threading, time\n"
        "def killed():\n"
        "    while len(multiprocessing.active_children()) < 2: time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=killed).start()\n"
        "Synthetic(num_tracks=4000, workers=2).all_tracks()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    children = run.stdout.split()
    assert len(children) == 2
    deadline = time.monotonic() + 20
    while any(map(lives, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, children))


def test_what_the_children_import_is_light():
    code = "import musictf.synthesis.synthetic, sys; assert not {'torch', 'librosa', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_corpora_that_sound_different_do_not_share_a_folder():
    variants = [{}, {"seed": 1}, {"seconds": 11.0}, {"sample_rate": 22050}, {"reinstrument": True}]
    assert len({Synthetic(**variant).folder for variant in variants}) == len(variants)
    assert Synthetic(num_tracks=7, workers=3, num_versions=3).folder == Synthetic().folder


@pytest.mark.parametrize(
    "fields",
    [
        {"num_tracks": 0}, {"num_tracks": 2.5}, {"seconds": 2.0}, {"seconds": float("nan")}, {"seconds": "long"},
        {"seed": -1}, {"num_versions": 0}, {"sample_rate": 100}, {"workers": -1}, {"num_tracks": True},
    ],
)  # fmt: skip
def test_bad_values_are_refused_in_one_line(fields):
    with pytest.raises(InputError, match=f"dataset.{next(iter(fields))}=") as caught:
        Synthetic(**fields)
    assert "\n" not in str(caught.value)


# --- what it says about itself


def test_it_is_a_manifest_corpus_whose_annotations_read_back():
    corpus = Synthetic(num_tracks=3, **FEW)
    tracks = corpus.all_tracks()
    assert Manifest(root=str(corpus.folder)).all_tracks() == tracks
    for index, track in enumerate(tracks):
        song = composition.compose(0, index, SECONDS)
        chords, beats = track.annotation("chords"), track.annotation("beats")
        assert chords.labels == song.chords.labels
        assert np.allclose(chords.intervals, song.chords.intervals, atol=1e-9)
        assert np.allclose(beats.times, song.beats.times, atol=1e-6)
        assert (beats.positions == song.beats.positions).all()
        info = soundfile.info(track.audio)
        assert (info.frames, info.samplerate, info.subtype) == (SECONDS * SAMPLE_RATE, SAMPLE_RATE, "PCM_16")
        assert track.labels["key"] == song.key
        assert track.group == track.track_id


def test_every_label_parses_and_chords_leave_no_gap(songs):
    for song in songs:
        intervals = song.chords.intervals
        assert intervals[0, 0] == 0
        assert intervals[-1, 1] == 40.0
        assert (intervals[1:, 0] == intervals[:-1, 1]).all()
        assert (np.diff(intervals) > 0).all()
        mir_eval.chord.encode_many(song.chords.labels)
        scores = mir_eval.chord.evaluate(intervals, song.chords.labels, intervals, song.chords.labels)
        assert scores["mirex"] == pytest.approx(1.0)


def test_chords_mean_to_mir_eval_what_is_played():
    for name, degrees in harmony.QUALITIES.items():
        for bass_degree in degrees:
            chord = harmony.Chord(root=3, quality=name, bass_degree=bass_degree)
            root, bitmap, bass = mir_eval.chord.encode(chord.label(flats=True))
            assert {(root + tone) % 12 for tone in np.flatnonzero(bitmap)} == set(chord.pitch_classes)
            assert (root + bass) % 12 == chord.bass


def test_every_progression_parses():
    for mode, progressions in enumerate((harmony.MAJOR_PROGRESSIONS, harmony.MINOR_PROGRESSIONS)):
        for text in progressions:
            assert all(harmony.chord_of(numeral, harmony.Key(0, bool(mode))) for numeral in text.split())


def test_patterns_fill_a_bar_evenly():
    for bank in (patterns.BLOCK_PATTERNS, patterns.BROKEN_PATTERNS, patterns.BASS_PATTERNS):
        for metre, rhythms in bank.items():
            smallest = {"4/4": 16, "3/4": 12, "6/8": 6}[metre]
            assert all(smallest % len(rhythm) == 0 for rhythm in rhythms), metre
    for metre, length in {"4/4": 16, "3/4": 12, "6/8": 12}.items():
        rows = [row for rhythm in (*patterns.DRUM_PATTERNS[metre], *patterns.FILLS[metre]) for row in rhythm]
        assert all(len(row) == length for row in rows), metre


def test_all_keys_metres_and_tempi_occur(songs):
    keys = Counter(song.key for song in songs)
    assert len(keys) == 24
    assert max(keys.values()) - min(keys.values()) <= 1
    for key in keys:
        mir_eval.key.validate_key(key)
    assert set(Counter(song.metre for song in songs)) == {"4/4", "3/4", "6/8"}
    tempi = np.array([song.tempo_bpm for song in songs])
    assert (tempi >= 60).all()
    assert (tempi <= 170).all()
    assert np.histogram(np.log(tempi), bins=5)[0].min() >= 10


def test_no_chord_is_frequent_and_no_chord_at_all_is_occasional(songs):
    seconds: Counter[str] = Counter()
    for song in songs:
        for (start, end), label in zip(song.chords.intervals, song.chords.labels, strict=True):
            root, bitmap, _ = mir_eval.chord.encode(label, reduce_extended_chords=True)
            seconds["N" if root < 0 else f"{root}{'min' if bitmap[3] else 'maj'}"] += end - start
    shares = {name: value / seconds.total() for name, value in seconds.items()}
    assert 0.03 < shares.pop("N") < 0.12
    assert max(shares.values()) < 0.1


def test_tags_are_balanced_and_splits_hold_every_kind(songs):
    casts = [rendering.cast(np.random.default_rng([0, index, 1, 0]), song) for index, song in enumerate(songs)]
    tags = [rendering.tags(players) for players in casts]
    shares = {tag: count / len(tags) for tag, count in Counter(tag for one in tags for tag in one).items()}
    assert len(shares) == 12
    assert all(0.1 <= share <= 0.6 for share in shares.values()), shares
    splits = [files.split_of(index) for index in range(160)]
    assert Counter(splits) == {"train": 112, "valid": 24, "test": 24}
    for split in SPLITS:
        chosen = [index for index in range(160) if splits[index] == split]
        assert {tag for index in chosen for tag in tags[index]} == set(shares)
        assert len({songs[index].metre for index in chosen}) == 3


# --- what it sounds like


def test_onsets_are_stronger_at_annotated_beats_than_elsewhere(recordings):
    ratios = []
    for song, waveform, _ in recordings:
        strength = librosa.onset.onset_strength(y=waveform, sr=SAMPLE_RATE, hop_length=256)
        times = librosa.times_like(strength, sr=SAMPLE_RATE, hop_length=256)
        spans = [strength[np.abs(times - beat) < 0.05].max() for beat in song.beats.times[:-1]]
        between = song.beats.times[:-1] + np.diff(song.beats.times) * 0.37
        others = [strength[np.abs(times - time) < 0.05].max() for time in between]
        ratios.append(np.mean(spans) / np.mean(others))
    assert np.median(ratios) > 2
    assert np.mean(np.array(ratios) > 1) > 0.8


def test_chroma_lies_on_the_annotated_chord_tones(recordings):
    truths, controls = [], []
    for song, waveform, _ in recordings:
        values = chroma(waveform)
        bar = (song.beats.times[4] - song.beats.times[0]) * SAMPLE_RATE / 1024
        truths.append(tone_share(song, values))
        controls.append(np.mean([tone_share(song, values, round(bar * shift)) for shift in (0.5, 1.25)]))
    assert np.mean(truths) > 0.25
    assert np.mean(np.array(truths) > np.array(controls) + 0.02) > 0.8


def test_nothing_sounds_before_the_first_beat_nor_after_the_end(recordings):
    def power(waveform, start, end):
        return np.sqrt(np.mean(waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] ** 2))

    for song, waveform, _ in recordings:
        first = song.beats.times[0]
        assert song.chords.labels[0] == "N"
        assert song.chords.intervals[0, 1] == pytest.approx(first, abs=1e-6)
        assert power(waveform, 0, first - 0.03) < 0.2 * power(waveform, first, first + 1)
        end = song.chords.intervals[-1, 0]
        if song.chords.labels[-1] == "N" and SECONDS - end > 0.6:
            assert power(waveform, end + 0.5, SECONDS) < 0.4 * power(waveform, end - 1, end)
    assert {song.chords.labels[-1] == "N" for song, _, _ in recordings} == {True, False}


def test_versions_share_time_and_harmony_but_not_sound(recordings):
    for song, first, second in recordings:
        assert len(first) == len(second) == SECONDS * SAMPLE_RATE
        assert max(np.abs(first).max(), np.abs(second).max()) < 1
        mels = [
            librosa.power_to_db(librosa.feature.melspectrogram(y=waveform / waveform.std(), sr=SAMPLE_RATE)).mean(
                axis=1
            )
            for waveform in (first, second)
        ]
        assert np.abs(mels[0] - mels[1]).mean() > 2.0
        assert tone_share(song, chroma(second)) > 0.15
        loudness = [librosa.onset.onset_strength(y=waveform, sr=SAMPLE_RATE) for waveform in (first, second)]
        together = np.corrcoef(*loudness)[0, 1]
        shifted = np.corrcoef(loudness[0], np.roll(loudness[1], 37))[0, 1]
        assert together > shifted + 0.1


def test_versions_have_other_players_and_are_listed():
    song = composition.compose(0, 4, SECONDS)
    (before, _), *others = rendering.recorded_versions(song, 0, 4, SECONDS, SAMPLE_RATE, num_versions=2)
    for players, _ in others:
        assert all(players[role].family != before[role].family for role in before)
        assert all(player.shift % 12 == 0 for player in players.values())
    corpus = Synthetic(num_tracks=1, reinstrument=True, **FEW)
    (track,) = corpus.all_tracks()
    assert [path.name for path in track.versions] == ["synthetic_0000_v1.wav", "synthetic_0000_v2.wav"]
    plain = Synthetic(num_tracks=1, **FEW).all_tracks()[0]
    assert plain.versions == ()
    assert plain.audio.read_bytes() == track.audio.read_bytes()
    assert "versions" not in json.loads((plain.audio.parents[1] / "manifest.jsonl").read_text())


def test_corpora_of_other_seeds_are_not_the_same_split(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path))
    corpora = [Synthetic(num_tracks=2, seconds=seconds, seed=seed) for seconds, seed in ((10, 0), (10, 1), (11, 0))]
    assert len({split_digest(corpus.tracks("train")) for corpus in corpora}) == 3
