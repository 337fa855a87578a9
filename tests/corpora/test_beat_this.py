"""The Beat This! annotations: official splits, positions as they stand, audio by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.beat_this import CORPORA, BeatThis
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "beat_this_annotations"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def add(root, corpus, names, single=None, folds=None, downbeats="true", text="0.5\t3\n1\t1\n1.5\t2\n2\t3\n2.5\t1\n"):
    folder = root / corpus
    (folder / "annotations" / "beats").mkdir(parents=True)
    (folder / "info.json").write_text(f'{{"has_downbeats": {downbeats}}}')
    for name in names:
        (folder / "annotations" / "beats" / f"{name}.beats").write_text(text)
    if corpus != "gtzan":
        single = single or ["train"] * len(names)
        folds = folds or [index % 8 for index in range(len(names))]
        for file, values in (("single.split", single), ("8-folds.split", folds)):
            (folder / file).write_text("".join(f"{name}\t{value}\n" for name, value in zip(names, values)))
    return folder


def wav(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(100), 8000)
    return path


def corpus(root, **settings):
    return BeatThis(root=str(root), **settings)


def splits(dataset):
    return {track.track_id: track.split for track in dataset.all_tracks()}


def test_one_fold_is_tested_the_next_one_validates(tmp_path):
    names = [f"ballroom_{number}" for number in range(16)]
    add(tmp_path, "ballroom", names)
    for given, fold in ((None, 0), (0, 0), (3, 3), (7, 7)):
        found = splits(corpus(tmp_path, fold=given))
        expected = {fold: "test", (fold + 1) % 8: "valid"}
        assert found == {f"ballroom/{name}": expected.get(index % 8, "train") for index, name in enumerate(names)}


def test_with_gtzan_the_others_follow_their_single_split(tmp_path):
    add(tmp_path, "gtzan", ["gtzan_blues_00000"])
    add(tmp_path, "hjdb", ["hjdb_a", "hjdb_b"], single=["train", "val"], folds=[0, 0])
    expected = {"gtzan/gtzan_blues_00000": "test", "hjdb/hjdb_a": "train", "hjdb/hjdb_b": "valid"}
    assert splits(corpus(tmp_path, corpus=["hjdb", "gtzan"])) == expected
    assert corpus(tmp_path, corpus=["hjdb", "gtzan"]).label == "beat_this-gtzan+hjdb"
    with pytest.raises(InputError, match="dataset.fold: with gtzan"):
        corpus(tmp_path, corpus=["hjdb", "gtzan"], fold=1).all_tracks()


def test_positions_stand_as_annotated_and_go_where_there_are_no_downbeats(tmp_path):
    add(tmp_path, "hjdb", ["hjdb_a"])
    add(tmp_path, "smc", ["smc_001"], downbeats="false")
    with_bars, without = (corpus(tmp_path, corpus=name).all_tracks()[0].annotation("beats") for name in ("hjdb", "smc"))
    assert with_bars.positions.tolist() == [3, 1, 2, 3, 1]  # a partial bar, then one of three
    assert without.positions is None
    assert without.times.tolist() == with_bars.times.tolist() == [0.5, 1, 1.5, 2, 2.5]


@pytest.mark.parametrize(
    ("name", "track", "file"),
    [
        ("ballroom", "ballroom_Albums-01", "audio/deep/ballroom_Albums-01.wav"),
        ("ballroom", "ballroom_Albums-01", "audio/ballroom/Albums-01.flac"),
        ("gtzan", "gtzan_blues_00000", "audio/gtzan/blues/blues.00000.wav"),
        ("gtzan", "gtzan_blues_00000", "audio/gtzan_blues_00000.ogg"),
    ],
)
def test_audio_goes_by_the_name_of_the_track(tmp_path, name, track, file):
    add(tmp_path, name, [track])
    path = wav(tmp_path / file)
    assert [found.audio for found in corpus(tmp_path, corpus=name).all_tracks()] == [path]
    (moved,) = corpus(tmp_path, corpus=name, audio_root=str(tmp_path / "audio")).all_tracks()
    assert moved.audio == path


def test_a_corpus_looks_into_its_own_folder_where_there_is_one(tmp_path):
    add(tmp_path, "smc", ["001"], downbeats="false")
    wav(tmp_path / "audio" / "hjdb" / "001.wav")
    path = wav(tmp_path / "audio" / "smc" / "001.wav")
    assert corpus(tmp_path, corpus="smc").all_tracks()[0].audio == path


def test_tracks_without_audio_or_annotation_are_listed(tmp_path):
    folder = add(tmp_path, "hjdb", ["hjdb_a", "hjdb_b"])
    (folder / "annotations" / "beats" / "hjdb_b.beats").unlink()
    first, second = corpus(tmp_path, corpus="hjdb").all_tracks()
    assert first.audio == tmp_path / "audio" / "hjdb_a.wav"
    assert not first.audio.exists()
    with pytest.raises(InputError, match="hjdb_b.beats: cannot be read"):
        second.annotation("beats")


@pytest.mark.parametrize(
    ("name", "tracks", "groups"),
    [
        ("asap", ["Bach_Fugue_bwv_848_Lee01M", "Bach_Fugue_bwv_848_LeeSH01M"], {"asap/Bach_Fugue_bwv_848"}),
        ("groove_midi", ["drummer10_session1_1", "drummer10_session2_1"], {"groove_midi/drummer10"}),
        ("guitarset", ["00_BN1-129-Eb_comp_mix", "00_BN1-129-Eb_solo_mix"], {"guitarset/00_BN1-129-Eb"}),
        ("simac", ["simac_DGG_419_047-2_02-Toccata", "simac_DGG_419_047-2_03-P"], {"simac/simac_DGG_419_047-2"}),
        ("candombe", ["csic.1995_ansina1_01", "csic.1995_ansina1_02"], {"candombe/csic.1995_ansina1"}),
        ("beatles", ["beatles_01_Please_01_I", "beatles_02_With_01_It"], {"beatles/beatles_01", "beatles/beatles_02"}),
        ("hjdb", ["hjdb_a", "hjdb_b"], {"hjdb/hjdb_a", "hjdb/hjdb_b"}),
    ],
)
def test_a_group_is_what_names_have_in_common(tmp_path, name, tracks, groups):
    add(tmp_path, name, tracks)
    assert {track.group for track in corpus(tmp_path, corpus=name).all_tracks()} == groups


def test_mistakes_are_named(tmp_path):
    folder = add(tmp_path, "hjdb", ["hjdb_a"])
    for settings, reason in (
        ({"corpus": "hjbd"}, "dataset.corpus=hjbd is unknown: one or more of asap"),
        ({"corpus": []}, "dataset.corpus"),
        ({"corpus": "hjdb", "fold": 8}, "dataset.fold=8 is not one of 0 to 7"),
        ({"corpus": "smc"}, "smc.info.json does not exist; musictf data prepare beat_this ROOT"),
    ):
        with pytest.raises(InputError, match=reason):
            corpus(tmp_path, **settings).all_tracks()
    (folder / "8-folds.split").write_text("hjdb_a\t8\n")
    with pytest.raises(InputError, match="8-folds.split:1: '8' is neither"):
        corpus(tmp_path, corpus="hjdb").all_tracks()
    (folder / "8-folds.split").write_text("hjdb_b\t1\n")
    with pytest.raises(InputError, match="hjdb_a.beats is in no split"):
        corpus(tmp_path, corpus="hjdb").all_tracks()
    (folder / "info.json").write_text("{}")
    with pytest.raises(InputError, match="info.json: has_downbeats must be true or false"):
        corpus(tmp_path, corpus="hjdb").all_tracks()


@real
def test_every_corpus_of_the_real_layout_reads():
    assert sorted(path.parent.name for path in REAL.glob("*/info.json")) == sorted(CORPORA)
    for name in CORPORA:
        tracks = corpus(REAL, corpus=name).all_tracks()
        annotated = [track for track in tracks if track.labels["beats"].path.is_file()]
        assert len(annotated) == 2, name
        for track in annotated:
            beats = track.annotation("beats")
            assert len(beats.times) > 0
            assert (beats.positions is None) == (name in ("simac", "smc")), name
    (first, *_) = corpus(REAL, corpus="ballroom").all_tracks()
    assert first.annotation("beats").positions[:6].tolist() == [4, 1, 2, 3, 4, 1]
