"""SIMAC: beats without positions, albums that lie in one split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.simac import SIMAC
from musictf.datasets.base import derived_split
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "simac"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, *names):
    for folder in ("audio", "annotations/beats"):
        (root / "S_1.0" / folder).mkdir(parents=True)
    for name in names:
        (root / "S_1.0" / "annotations" / "beats" / f"{name}.beats").write_text("0.24\n1.047\n")
    return root


def test_beats_have_no_positions(tmp_path):
    write(tmp_path, "simac_01_H_mikri_Rallou", "simac_Amber_01-Foil")
    soundfile.write(tmp_path / "S_1.0" / "audio" / "simac_Amber_01-Foil.flac", np.zeros(100), 8000)
    for root in (tmp_path, tmp_path / "S_1.0"):
        first, second = SIMAC(root=str(root)).all_tracks()
        assert second.audio.is_file()
        assert not first.audio.exists()
        assert first.annotation("beats").times.tolist() == [0.24, 1.047]
        assert first.annotation("beats").positions is None


@pytest.mark.parametrize(
    ("name", "album"),
    [
        ("simac_Amber_01-Foil", "simac_Amber"),
        ("simac_DGG_419_047-2_02-Toccata", "simac_DGG_419_047-2"),
        ("simac_Classic_Track_04", "simac_Classic_Track"),
        ("simac_01_H_mikri_Rallou", "simac_01_H_mikri_Rallou"),
    ],
)
def test_an_album_is_a_group(tmp_path, name, album):
    (track,) = SIMAC(root=str(write(tmp_path, name))).all_tracks()
    assert (track.group, track.split) == (album, derived_split(album))


def test_an_absent_or_empty_index_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder S_1.0/annotations/beats .*; musictf data prepare simac ROOT"):
        SIMAC(root=str(tmp_path)).all_tracks()
    with pytest.raises(InputError, match=r"no file \*.beats"):
        SIMAC(root=str(write(tmp_path))).all_tracks()


@real
def test_the_real_layout_reads():
    (track,) = SIMAC(root=str(REAL)).all_tracks()
    assert track.track_id == "simac_01_H_mikri_Rallou"
    assert track.audio.is_file()
    assert track.annotation("beats").times.tolist() == [0.24, 1.047, 1.86]
    assert track.annotation("beats").positions is None
