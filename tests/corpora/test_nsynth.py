"""NSynth: official folders are the splits, instruments the groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.nsynth import NSynth
from musictf.errors import InputError

NOTE = {"instrument_family_str": "bass", "instrument_str": "bass_synthetic_068", "pitch": 49, "velocity": 25}


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "nsynth"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, split, notes, audio=True):
    folder = root / f"nsynth-{split}"
    (folder / "audio").mkdir(parents=True)
    (folder / "examples.json").write_text(json.dumps(notes))
    for name in notes if audio else ():
        soundfile.write(folder / "audio" / f"{name}.wav", np.zeros(100), 16_000)
    return root


def test_folders_are_splits_and_instruments_are_groups(tmp_path):
    for split in ("train", "valid", "test"):
        other = NOTE | {"instrument_family_str": "reed", "pitch": 50}
        write(tmp_path, split, {f"{split}-b": NOTE, f"{split}-a": other})
    tracks = NSynth(root=str(tmp_path)).all_tracks()
    names = [f"{split}-{name}" for split in ("train", "valid", "test") for name in "ab"]
    assert [track.track_id for track in tracks] == names
    assert [track.split for track in tracks] == [name[:-2] for name in names]
    assert [track.annotation("instrument") for track in tracks[:2]] == ["reed", "bass"]
    assert [track.annotation("pitch") for track in tracks[:2]] == [50, 49]
    assert {track.group for track in tracks} == {"bass_synthetic_068"}
    assert all(track.audio.is_file() for track in tracks)


def test_a_copy_may_have_some_splits_if_it_says_so(tmp_path):
    write(tmp_path, "test", {"a": NOTE}, audio=False)
    (track,) = NSynth(root=str(tmp_path), splits=["test"]).all_tracks()
    assert track.audio == tmp_path / "nsynth-test" / "audio" / "a.wav"
    with pytest.raises(InputError, match="nsynth-train.examples.json does not exist; musictf data prepare nsynth ROOT"):
        NSynth(root=str(tmp_path)).all_tracks()
    for splits in (["dev"], []):
        with pytest.raises(InputError, match="dataset.splits=.* must be some of train, valid, test"):
            NSynth(root=str(tmp_path), splits=splits).all_tracks()


def test_a_note_without_its_family_is_named(tmp_path):
    write(tmp_path, "test", {"a": {"pitch": 3}})
    with pytest.raises(InputError, match="examples.json: note 'a' lacks a field .'instrument_family_str'"):
        NSynth(root=str(tmp_path), splits=["test"]).all_tracks()


@real
def test_the_real_layout_reads():
    tracks = NSynth(root=str(REAL), splits=["test"]).all_tracks()
    assert len(tracks) == 10
    for track in tracks:
        family, pitch = track.track_id.split("_")[0], int(track.track_id.split("-")[-2])
        assert (track.annotation("instrument"), track.annotation("pitch")) == (family, pitch)
        assert track.audio.is_file()
