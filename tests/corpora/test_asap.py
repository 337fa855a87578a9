"""ASAP: positions follow from the downbeats, a work lies in one split, MIDI-only performances need renderings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.asap import ASAP, read_beats
from musictf.datasets.base import derived_split
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "asap"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, performances):
    """Metadata of performances (composer, title, path, has_audio)."""
    header = "composer,title,folder,midi_performance,performance_annotations,audio_performance"
    lines = [
        f"{composer},{title},x,{path}.mid,{path}_annotations.txt,{f'{path}.wav' if has_audio else ''}"
        for composer, title, path, has_audio in performances
    ]
    (root / "metadata.csv").write_text("\n".join((header, *lines, "")))
    return root


def beats(tmp_path, labels):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{0.5 * n + 0.1}\t{0.5 * n + 0.1}\t{label}\n" for n, label in enumerate(labels)))
    return read_beats(path)


def test_recordings_are_tracks_and_midi_files_are_not(tmp_path):
    write(tmp_path, [("Bach", "F1", "Bach/F1/Lee", True), ("Bach", "F1", "Bach/F1/Lan", False)])
    (tmp_path / "Bach" / "F1").mkdir(parents=True)
    soundfile.write(tmp_path / "Bach" / "F1" / "Lee.wav", np.zeros(100), 8000)
    (tmp_path / "Bach" / "F1" / "Lee_annotations.txt").write_text("0.1\t0.1\tb,,0\n1\t1\tdb,4/4\n")
    (track,) = ASAP(root=str(tmp_path)).all_tracks()
    assert track.track_id == "Bach/F1/Lee"
    assert track.audio.is_file()
    np.testing.assert_array_equal(track.annotation("beats").downbeats, [1.0])


def test_with_renderings_all_performances_are_tracks(tmp_path):
    write(tmp_path, [("Bach", "F1", "Bach/F1/Lee.B", True), ("Bach", "F1", "Bach/F1/Lan", False)])
    (tmp_path / "rendered").mkdir()
    tracks = ASAP(root=str(tmp_path), audio_root=str(tmp_path / "rendered")).all_tracks()
    assert [track.track_id for track in tracks] == ["Bach/F1/Lee.B", "Bach/F1/Lan"]
    assert [track.audio for track in tracks] == [
        tmp_path / "rendered" / "Bach" / "F1" / name for name in ("Lee.B.wav", "Lan.wav")
    ]


def test_a_work_is_in_one_split_wherever_its_folder_is(tmp_path):
    write(tmp_path, [("Bach", f"F{n % 50}", f"Bach/{n}", True) for n in range(200)])
    tracks = ASAP(root=str(tmp_path)).all_tracks()
    assert all(track.split == derived_split(track.group) for track in tracks)
    assert len({track.group for track in tracks}) == 50
    assert {track.split for track in tracks} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("labels", "positions"),
    [
        (["b,,0", "b", "b", "db,4/4", "b", "b", "b", "db"], [2, 3, 4, 1, 2, 3, 4, 1]),
        (["db,3/4,-3", "b", "b", "db,5/8", "b", "b", "b", "b", "db"], [1, 2, 3, 1, 2, 3, 4, 5, 1]),
        (["db,6/8", "b", "db", "bR", "bR", "bR", "db", "b"], [1, 2, 1, 2, 3, 4, 1, 2]),  # never a downbeat
        (["bR", "db", "b", "db"], [2, 1, 2, 1]),
        (["db", "b", ",,3", "db"], [1, 2, 1]),  # a key signature between beats is not one
    ],
)
def test_positions_follow_from_the_downbeats(tmp_path, labels, positions):
    assert beats(tmp_path, labels).positions.tolist() == positions


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="a.txt:2: 'c' is not one of b, db, bR"):
        beats(tmp_path, ["b", "c"])
    (tmp_path / "a.txt").write_text("1\t1\tb\n1\t1\tdb\n")
    with pytest.raises(InputError, match="a.txt:2: beat at 1.0 s does not come after"):
        read_beats(tmp_path / "a.txt")
    with pytest.raises(InputError, match="metadata.csv does not exist; musictf data prepare asap ROOT"):
        ASAP(root=str(tmp_path)).all_tracks()


@real
def test_the_real_layout_reads_and_pickups_are_those_of_beat_this():
    tracks = {track.track_id: track for track in ASAP(root=str(REAL)).all_tracks()}
    track = tracks["Bach/Fugue/bwv_846/Shi05M"]
    assert track.audio == REAL.resolve() / "Bach" / "Fugue" / "bwv_846" / "Shi05M.wav"
    assert track.group == "Bach Fugue_bwv_846"
    assert "Bach/Fugue/bwv_857/Lan01M" not in tracks  # MIDI only
    for name in ("Fugue_bwv_846_Shi05M", "Fugue_bwv_848_Denisova06M"):
        theirs = REAL.parent / "beat_this_annotations" / "asap" / "annotations" / "beats" / f"Bach_{name}.beats"
        found = tracks[f"Bach/Fugue/{name[6:13]}/{name[14:]}"].annotation("beats")
        expected = np.loadtxt(theirs)
        shared = min(len(expected), len(found.times))
        assert shared > 5
        np.testing.assert_allclose(found.times[:shared], expected[:shared, 0], atol=1e-6)
        np.testing.assert_array_equal(found.positions[:shared], expected[:shared, 1])
