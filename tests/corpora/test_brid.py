"""BRID: beats of the mixtures, with positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.brid import BRID
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "brid"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


@pytest.mark.parametrize("annotations", ["Annotations", "annotations"])
def test_mixtures_with_beats_are_tracks(tmp_path, annotations):
    folder = tmp_path / "BRID_1.0" / annotations / "beats"
    folder.mkdir(parents=True)
    for name in ("[0002] M4-02-SA", "[0001] M4-01-SA"):
        (folder / f"{name}.beats").write_text("0.025\t2\n0.76\t1\n1.49\t2\n")
    audio = tmp_path / "BRID_1.0" / "Data" / "Acoustic Mixtures"
    audio.mkdir(parents=True)
    for name in ("[0001] M4-01-SA", "[0218] S1-TB2-01-SA"):
        soundfile.write(audio / f"{name}.wav", np.zeros(100), 8000)
    for root in (tmp_path, tmp_path / "BRID_1.0"):
        first, second = BRID(root=str(root)).all_tracks()  # the solo without beats is none
        assert (first.track_id, first.audio) == ("[0001] M4-01-SA", audio / "[0001] M4-01-SA.wav")
        assert not second.audio.exists()
        assert first.annotation("beats").positions.tolist() == [2, 1, 2]
        assert first.annotation("beats").downbeats.tolist() == [0.76]


def test_an_absent_index_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder BRID_1.0/Annotations/beats .*; musictf data prepare brid ROOT"):
        BRID(root=str(tmp_path)).all_tracks()


@real
def test_the_real_layout_reads():
    (track,) = BRID(root=str(REAL)).all_tracks()
    assert track.track_id == "[0001] M4-01-SA"
    assert track.annotation("beats").positions.tolist() == [2, 1, 2]
