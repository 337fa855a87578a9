"""Candombe: bar.beat is a text, a session lies in one split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.candombe import Candombe
from musictf.errors import InputError

SESSIONS = {
    "csic.1995_ansina1": 5,
    "csic.1995_ansina2": 4,
    "csic.1995_cuareim": 5,
    "proyecto.1992_gimenez": 2,
    "proyecto.1992_lobo": 2,
    "proyecto.1992_magarinos": 1,
    "proyecto.1992_pelado": 2,
    "zavala.muniz.2014": 14,
}


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "candombe"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, *names, text="0.5,9.4\n1.0,10.1\n1.5,10.2\n2.0,11.1\n"):
    folder = root / "candombe_annotations" / "with_bar_number"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.csv").write_text(text)
    return root


def test_positions_are_those_after_the_dot(tmp_path):
    write(tmp_path, "csic.1995_ansina1_01", "csic.1995_ansina1_02")
    (tmp_path / "candombe_audio").mkdir()
    soundfile.write(tmp_path / "candombe_audio" / "csic.1995_ansina1_01.flac", np.zeros(100), 8000)
    first, second = Candombe(root=str(tmp_path)).all_tracks()
    assert first.audio.is_file()
    assert not second.audio.exists()
    beats = first.annotation("beats")
    assert beats.times.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert beats.positions.tolist() == [4, 1, 2, 1]


def test_sessions_are_not_torn_and_every_split_has_one(tmp_path):
    write(tmp_path, *(f"{name}_{take:02d}" for name, count in SESSIONS.items() for take in range(count)))
    corpus = Candombe(root=str(tmp_path))
    assert len(corpus.all_tracks()) == corpus.published["tracks"]
    assert {split: len(corpus.tracks(split)) for split in ("train", "valid", "test")} == {
        "train": 28,
        "valid": 2,
        "test": 5,
    }
    assert {track.group for track in corpus.tracks("test")} == {"csic.1995_ansina1"}
    assert {track.group for track in corpus.all_tracks()} == SESSIONS.keys()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("0.5,1\n", ":1: '1' is not bar"), ("0.5,1.0\n", ":1: '1.0' is not"), ("1,1.1\n1,1.2\n", ":2: beat at 1.0 s")],
)
def test_a_mistake_is_named_by_its_line(tmp_path, text, reason):
    (track,) = Candombe(root=str(write(tmp_path, "a_1", text=text))).all_tracks()
    with pytest.raises(InputError, match=f"a_1.csv{reason}"):
        track.annotation("beats")


def test_an_absent_index_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder .*with_bar_number; musictf data prepare candombe ROOT"):
        Candombe(root=str(tmp_path)).all_tracks()


@real
def test_the_real_layout_reads():
    (track,) = Candombe(root=str(REAL)).all_tracks()
    assert (track.track_id, track.group) == ("csic.1995_ansina1_01", "csic.1995_ansina1")
    assert track.annotation("beats").positions.tolist() == [1, 2, 3, 4] * 3
