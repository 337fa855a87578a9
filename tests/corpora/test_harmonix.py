"""The Harmonix Set: bars of any length, songs of an artist in one split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.harmonix import Harmonix
from musictf.datasets.base import derived_split
from musictf.errors import InputError

HEADER = "File,Title,Artist,Release,Duration,BPM,Ratio Bars in 4,Time Signature,Genre,MusicBrainz Id,Acoustid Id"


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "harmonix"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def row(name, artist="Ciara", bpm="113"):
    return f'{name},"1, 2 Step",{artist},Goodies,142.47,{bpm},100.0,4|4,R&B,x,'


def write(root, names, rows):
    folder = root / "dataset" / "beats_and_downbeats"
    folder.mkdir(parents=True)
    (root / "dataset" / "metadata.csv").write_text("\n".join((HEADER, *rows, "")), encoding="utf-8")
    for name in names:
        (folder / f"{name}.txt").write_text("0.5\t4\t0\n1.0\t1\t1\n1.5\t2\t1\n2.0\t3\t1\n2.5\t1\t2\n")
    return root


def test_a_song_has_its_bars_and_its_metadata(tmp_path):
    write(tmp_path, ["0001_12step", "0002_b"], [row("0001_12step")])
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "0001_12step.flac", np.zeros(100), 8000)
    known, unknown = Harmonix(root=str(tmp_path), audio_root=str(tmp_path / "music")).all_tracks()
    assert known.audio == tmp_path / "music" / "0001_12step.flac"
    assert known.annotation("beats").positions.tolist() == [4, 1, 2, 3, 1]
    assert [known.annotation(name) for name in ("artist", "genre", "tempo")] == ["Ciara", "R&B", 113.0]
    assert known.group == "Ciara"
    assert (unknown.group, unknown.annotation("artist")) == ("0002_b", None)
    assert not unknown.audio.exists()


def test_an_artist_is_in_one_split(tmp_path):
    names = [f"{number:04d}_song" for number in range(200)]
    write(tmp_path, names, [row(name, f"artist {int(name[:4]) % 40}") for name in names])
    tracks = Harmonix(root=str(tmp_path)).all_tracks()
    assert all(track.split == derived_split(track.annotation("artist")) for track in tracks)
    assert {track.split for track in tracks} == {"train", "valid", "test"}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder .*beats_and_downbeats; musictf data prepare harmonix ROOT"):
        Harmonix(root=str(tmp_path)).all_tracks()
    write(tmp_path, ["a"], [row("a", bpm="fast")])
    with pytest.raises(InputError, match="metadata.csv, a: expected a number, found 'fast'"):
        Harmonix(root=str(tmp_path)).all_tracks()


@real
def test_bars_of_three_and_five_of_the_real_layout_keep_their_positions(tmp_path):
    shutil.copytree(REAL / "dataset", tmp_path / "dataset")
    (tmp_path / "dataset" / "metadata.csv").write_text(f"{HEADER}\n{row('0008_america')}\n")
    (track,) = Harmonix(root=str(tmp_path)).all_tracks()
    positions = track.annotation("beats").positions
    assert positions[8:17].tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert positions[17:].tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert len(track.annotation("beats").downbeats) == 6
