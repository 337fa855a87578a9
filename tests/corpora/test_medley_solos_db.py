"""Medley-solos-DB: the official subsets, one instrument a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.medley_solos_db import MedleySolosDB
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "medley_solos_db"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")

ROWS = ("training,piano,4,7,aa", "validation,flute,3,210,bb", "test,distorted electric guitar,1,7,cc")


def write(root, *rows, folder="annotation"):
    (root / folder).mkdir(exist_ok=True)
    (root / "audio").mkdir(exist_ok=True)
    text = "\n".join(("subset,instrument,instrument_id,song_id,uuid4", *rows, ""))
    (root / folder / "Medley-solos-DB_metadata.csv").write_text(text)
    soundfile.write(root / "audio" / "Medley-solos-DB_training-4_aa.wav", np.zeros(100), 8000)
    return MedleySolosDB(root=str(root))


@pytest.mark.parametrize("folder", ["annotation", "."])
def test_subsets_instruments_and_songs(tmp_path, folder):
    tracks = write(tmp_path, *ROWS, folder=folder).all_tracks()
    assert [track.track_id for track in tracks] == ["aa", "bb", "cc"]
    assert [track.split for track in tracks] == ["train", "valid", "test"]
    assert [track.annotation("instrument") for track in tracks] == ["piano", "flute", "distorted electric guitar"]
    assert len({track.group for track in tracks}) == 3  # song 7 of the test collection is another one
    assert tracks[0].audio.is_file()
    assert tracks[2].audio == tmp_path / "audio" / "Medley-solos-DB_test-1_cc.wav"  # not there, and listed


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="metadata.csv does not exist .*; musictf data prepare medley_solos_db ROOT"):
        MedleySolosDB(root=str(tmp_path)).all_tracks()
    with pytest.raises(InputError, match="metadata.csv:3: subset 'dev' is not one of training"):
        write(tmp_path, ROWS[0], "dev,flute,3,1,dd").all_tracks()


@real
def test_the_real_layout_reads():
    (track,) = MedleySolosDB(root=str(REAL)).all_tracks()
    assert (track.split, track.annotation("instrument"), track.group) == ("valid", "flute", "validation/210")
    assert soundfile.info(track.audio).duration == pytest.approx(2.97, abs=0.05)
