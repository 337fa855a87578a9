"""SMC: the annotations of 2014, one for each excerpt, beats without positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.annotations import read_beats
from musictf.corpora.smc import FOLDER, SMC
from musictf.errors import InputError

# Beats of the corpus as another project hands them on; the audio folders are not at hand.
REAL = Path(__file__).parents[3] / "shared" / "data" / "formats" / "beat_this_annotations" / "smc" / "annotations"


@pytest.fixture
def root(tmp_path):
    for folder in ("SMC_MIREX_Annotations", FOLDER, "SMC_MIREX_Audio"):
        (tmp_path / "SMC_MIREX" / folder).mkdir(parents=True)
    for name in ("SMC_001_2_1_1_a.txt", "SMC_271_1_1_1_f.txt"):
        (tmp_path / "SMC_MIREX" / "SMC_MIREX_Annotations" / name).write_text("0.6775\n99.0\n")
        (tmp_path / "SMC_MIREX" / FOLDER / name).write_text("0.6775\n1.9346\n3.1265\n")
    (tmp_path / "SMC_MIREX" / FOLDER / "._SMC_001_2_1_1_a.txt").write_bytes(b"\x00\x05\x16\x07")
    soundfile.write(tmp_path / "SMC_MIREX" / "SMC_MIREX_Audio" / "SMC_001.wav", np.zeros(800), 8000)
    return tmp_path


def test_excerpts_have_beats_without_positions(root):
    first, second = SMC(root=str(root)).all_tracks()
    assert (first.track_id, second.track_id) == ("SMC_001", "SMC_271")
    assert first.audio.is_file()
    assert not second.audio.exists()
    beats = first.annotation("beats")
    np.testing.assert_array_equal(beats.times, [0.6775, 1.9346, 3.1265])  # those of 2014, not the first ones
    assert beats.positions is None
    assert SMC(root=str(root / "SMC_MIREX")).all_tracks() == [first, second]


def test_two_annotations_of_one_excerpt_are_refused(root):
    (root / "SMC_MIREX" / FOLDER / "SMC_001_3_1_1_b.txt").write_text("1\n")
    with pytest.raises(InputError, match="SMC_001_3_1_1_b.txt: expected one file"):
        SMC(root=str(root)).all_tracks()


def test_the_older_annotations_alone_are_not_taken(root):
    (root / "SMC_MIREX" / FOLDER).rename(root / "elsewhere")
    with pytest.raises(InputError, match="no folder .*05_08_2014.*data prepare smc"):
        SMC(root=str(root)).all_tracks()


@pytest.mark.skipif(not REAL.is_dir(), reason="real annotations are not at hand")
def test_real_annotations_are_read(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for path in (REAL / "beats").glob("*.beats"):
        name = f"{path.stem.upper()}_2_1_1_a.txt"
        (tmp_path / FOLDER / name).write_bytes(path.read_bytes())
    tracks = SMC(root=str(tmp_path)).all_tracks()
    assert [track.track_id for track in tracks] == ["SMC_001", "SMC_002"]
    np.testing.assert_array_equal(
        tracks[1].annotation("beats").times, read_beats(REAL / "beats" / "smc_002.beats").times
    )
