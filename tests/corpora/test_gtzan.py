import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.audio.io import audio_info
from musictf.corpora.gtzan import GENRES, GTZAN
from musictf.errors import InputError

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "gtzan_genre"


def write(root, folder="genres", suffix=".wav", clips=("blues.00000", "jazz.00054")):
    for clip in clips:
        path = root / folder / clip.split(".")[0] / f"{clip}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(2205), 22050)
    return str(root)


def jams(times, downbeats):
    kinds = {"beat": times, "downbeat": downbeats}
    return json.dumps(
        {
            "annotations": [
                {"namespace": "beat", "sandbox": {"annotation_type": kind}, "data": [{"time": t} for t in values]}
                for kind, values in kinds.items()
            ]
        }
    )


def one(corpus, clip="blues.00000"):
    return next(track for track in corpus.read_tracks() if track.track_id == clip)


def test_the_filtered_split_has_the_published_counts(tmp_path):
    tracks = GTZAN(root=write(tmp_path)).read_tracks()
    counts = {split: sum(track.split == split for track in tracks) for split in ("train", "valid", "test")}
    assert counts == {"train": 443, "valid": 197, "test": 290}
    assert len({track.track_id for track in tracks}) == 930
    assert {track.labels["genre"] for track in tracks} == set(GENRES)


def test_some_clips_of_the_filtered_split_are_where_the_published_lists_have_them(tmp_path):
    splits = {track.track_id: track.split for track in GTZAN(root=write(tmp_path)).read_tracks()}
    known = {
        "blues.00029": "train", "blues.00011": "valid", "blues.00012": "test", "classical.00049": "test",
        "disco.00005": "train", "hiphop.00077": "train", "metal.00036": "valid", "reggae.00060": "train",
        "pop.00096": "test", "rock.00099": "train", "jazz.00054": "train",
    }  # fmt: skip
    assert {clip: splits[clip] for clip in known} == known
    assert not {"reggae.00086", "metal.00040", "pop.00015", "rock.00100"} & splits.keys()  # faults, and no such clip


def test_the_unreadable_clip_is_left_out(tmp_path):
    corpus = GTZAN(root=write(tmp_path))
    assert len(corpus.all_tracks()) == 929
    assert len(corpus.tracks("train")) == 442


def test_all_clips_have_a_random_split_and_the_label_says_so(tmp_path):
    corpus = GTZAN(root=write(tmp_path), split="all")
    assert len(corpus.read_tracks()) == 1000
    assert corpus.label == "gtzan:all-random"
    assert GTZAN(root=write(tmp_path)).label == "gtzan:filtered"
    with pytest.raises(InputError, match="one of filtered, all"):
        GTZAN(root="/", split="random")


@pytest.mark.parametrize("folder", ["genres", "genres_original", "Data/genres_original", "."])
@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_audio_is_found_in_every_copy_there_is(tmp_path, folder, suffix):
    track = one(GTZAN(root=write(tmp_path, folder, suffix)))
    assert audio_info(track.audio).sample_rate == 22050
    assert track.labels["tags"] == ["blues"]
    assert "beats" not in track.labels


def test_a_clip_that_is_missing_is_listed(tmp_path):
    track = one(GTZAN(root=write(tmp_path)), "rock.00000")
    assert track.audio == tmp_path / "genres/rock/rock.00000.wav"
    assert not track.audio.exists()


def test_beats_and_tempo_are_read_from_their_files(tmp_path):
    root = write(tmp_path)
    for kind, suffix, text in (("beats", "beats", "0.5\t4\n1.0\t1\n1.5\t2\n"), ("tempo", "bpm", "1.2e+02\n")):
        folder = tmp_path / "gtzan_tempo_beat-main" / kind
        folder.mkdir(parents=True)
        (folder / f"gtzan_blues_00000.{suffix}").write_text(text)
    track = one(GTZAN(root=root))
    np.testing.assert_array_equal(track.annotation("beats").downbeats, [1.0])
    assert track.annotation("tempo") == 120.0
    assert one(GTZAN(root=root), "blues.00001").annotation("beats") is None


def test_beats_are_read_from_jams_and_count_from_the_downbeat(tmp_path):
    root = write(tmp_path)
    (tmp_path / "jams").mkdir()
    (tmp_path / "jams/blues.00000.wav.jams").write_text(jams([1.5, 0.5, 1.0, 2.0, 2.5], [1.0, 2.0004]))
    beats = one(GTZAN(root=root)).annotation("beats")
    np.testing.assert_array_equal(beats.times, [0.5, 1.0, 1.5, 2.0, 2.5])
    np.testing.assert_array_equal(beats.positions, [2, 1, 2, 1, 2])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (jams([0.5, 1.0], [0.75]), "1 downbeats, of which 0 are beats"),
        ("{", "expected JAMS with a 'beat' annotation"),
        ('{"annotations": []}', "expected JAMS"),
        ("[]", "expected JAMS"),
    ],
)
def test_jams_of_another_kind_are_refused(tmp_path, text, reason):
    root = write(tmp_path)
    (tmp_path / "jams").mkdir()
    (tmp_path / "jams/blues.00000.wav.jams").write_text(text)
    with pytest.raises(InputError, match=f"blues.00000.wav.jams: .*{reason}"):
        one(GTZAN(root=root)).annotation("beats")


@pytest.mark.parametrize("text", ["fast", "", "-3", "nan", "inf"])
def test_a_tempo_that_is_none_is_refused(tmp_path, text):
    root = write(tmp_path)
    path = tmp_path / "gtzan_tempo_beat-main/tempo/gtzan_blues_00000.bpm"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match="00000.bpm:1: expected beats per minute"):
        one(GTZAN(root=root)).annotation("tempo")


@pytest.mark.skipif(not FORMATS.is_dir(), reason="no cut-down copy of GTZAN beside the repository")
def test_the_real_layout_is_read():
    corpus = GTZAN(root=str(FORMATS))
    assert one(corpus).audio.is_file()
    track = one(corpus, "country.00000")
    assert track.annotation("tempo") == pytest.approx(85.53)
    beats = track.annotation("beats")
    assert beats.times[0] == pytest.approx(0.113)
    assert beats.positions[:3].tolist() == [1, 2, 3]
    assert "jazz.00054" not in {track.track_id for track in corpus.all_tracks()}
