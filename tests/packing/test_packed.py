"""A packed corpus is the corpus that was packed: its tracks, splits, labels and identities, without its audio."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.audio.io import audio_info
from musictf.config import compose
from musictf.datasets.base import corpus_digest, require_audio, split_digest
from musictf.datasets.identity import identities
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.packing.make_pack import pack
from musictf.packing.packed import Packed, packed_identities

RATE = 16_000


def make(folder, names, white_noise, seed=0):
    folder.mkdir()
    lines = []
    for number, name in enumerate(names):
        soundfile.write(folder / f"{name}.wav", white_noise(2 * RATE, seed + number), RATE)
        lines.append({"track_id": name, "audio": f"{name}.wav", "split": "train", "group": f"album {number // 2}"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Manifest(root=str(folder))


@pytest.fixture
def corpus(tmp_path, white_noise):
    """Three tracks, the first with every kind of label and a version."""
    folder = tmp_path / "corpus"
    manifest = make(folder, ["a", "b", "c"], white_noise)
    (folder / "a.lab").write_text("0 0.5 C:maj\n0.5 1.25 A:min7/b3\n")
    (folder / "a.beats").write_text("0.123456\t1\n0.6\t2\n")
    (folder / "b.beats").write_text("")
    (folder / "a.txt").write_text("0.1\n0.25\n")
    (folder / "a.sections.lab").write_text("0 0.5 A\n0.5 1.25 B 2\n")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[0] |= {
        "sections": "a.sections.lab",
        "chords": "a.lab",
        "beats": "a.beats",
        "onsets": "a.txt",
        "tags": ["ä", "b"],
        "artist": "Ann",
    }
    lines[0] |= {"tempo": 120.5, "key": "C major", "mood": {"x": 1}, "versions": ["b.wav"]}
    lines[1] |= {"beats": "b.beats", "split": "valid"}
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture
def packed(tmp_path, corpus):
    return Packed(root=str(pack(corpus, str(tmp_path / "pack"), RATE)))


def test_tracks_are_those_of_the_corpus(corpus, packed):
    for before, after in zip(corpus.all_tracks(), packed.all_tracks(), strict=True):
        for name in ("track_id", "audio", "versions", "split", "group", "source"):
            assert getattr(after, name) == getattr(before, name)
        assert before.labels.keys() == after.labels.keys()
    track = packed.all_tracks()[0]
    plain = {name: track.annotation(name) for name in ("tags", "artist", "tempo", "key", "mood")}
    assert plain == {"tags": ["ä", "b"], "artist": "Ann", "tempo": 120.5, "key": "C major", "mood": {"x": 1}}
    assert packed.label == "pack"
    assert [track.track_id for track in packed.tracks("valid")] == ["b"]


def test_annotations_are_in_the_pack_and_the_corpus_may_go(tmp_path, corpus, packed):
    before = corpus.all_tracks()
    expected = {name: before[0].annotation(name) for name in ("chords", "beats", "onsets")}
    shutil.move(tmp_path / "corpus", tmp_path / "elsewhere")
    first, second, third = packed.all_tracks()
    assert first.annotation("chords").labels == expected["chords"].labels
    np.testing.assert_allclose(first.annotation("chords").intervals, expected["chords"].intervals, atol=1e-6)
    np.testing.assert_array_equal(first.annotation("beats").times, expected["beats"].times)
    np.testing.assert_array_equal(first.annotation("beats").positions, [1, 2])
    np.testing.assert_array_equal(first.annotation("onsets"), expected["onsets"])
    assert first.annotation("sections").labels == ["A", "B 2"]
    np.testing.assert_array_equal(first.annotation("sections").intervals, [[0, 0.5], [0.5, 1.25]])
    assert len(second.annotation("beats").times) == 0
    assert third.annotation("beats") is None
    assert first.slots[0].read(0, 100).any()


def test_audio_that_is_gone_is_missed_only_where_files_are_needed(tmp_path, packed):
    tracks = packed.all_tracks()
    require_audio(tracks, "mine", files=True)
    shutil.rmtree(tmp_path / "corpus")
    require_audio(tracks, "mine")
    with pytest.raises(InputError, match="4 audio files of 3 tracks do not exist"):
        require_audio(tracks, "mine", files=True)
    with pytest.raises(InputError, match="does not exist"):
        audio_info(tracks[0].audio)


def test_digests_follow_the_samples_and_need_no_file(tmp_path, corpus, packed, white_noise):
    before = corpus_digest(packed.all_tracks())
    assert before == corpus_digest(packed.all_tracks()[::-1]) != corpus_digest(packed.all_tracks()[:2])
    shutil.copytree(tmp_path / "corpus", tmp_path / "kept")
    shutil.rmtree(tmp_path / "corpus")
    assert corpus_digest(packed.all_tracks()) == before
    assert len(split_digest(packed.all_tracks())) == 16
    shutil.move(tmp_path / "kept", tmp_path / "corpus")
    soundfile.write(tmp_path / "corpus" / "c.wav", white_noise(2 * RATE, 99), RATE)  # of the same size
    other = Packed(root=str(pack(corpus, str(tmp_path / "other"), RATE)))
    assert corpus_digest(other.all_tracks()) != before


def test_identities_are_known_without_decoding(tmp_path, corpus, packed, monkeypatch):
    expected = identities(corpus.all_tracks())
    shutil.rmtree(tmp_path / "corpus")
    tracks = packed.all_tracks()
    found = packed_identities(tracks)
    assert (found.level, found.fingerprints) == (expected.level, expected.fingerprints)
    for mine, other in zip(found.recordings, expected.recordings, strict=True):
        assert vars(mine) | {"fingerprint": 0} == vars(other) | {"fingerprint": 0}
        np.testing.assert_array_equal(mine.fingerprint, other.fingerprint)
    some = packed_identities([tracks[2], tracks[0]])
    assert [identity.track_id for identity in some.recordings] == ["c", "a", "a"]
    assert packed_identities(corpus_without_slots(tracks)) is None


def corpus_without_slots(tracks):
    import dataclasses

    return [dataclasses.replace(tracks[0], slots=()), *tracks[1:]]


def test_a_list_of_identities_of_another_pack_is_refused(tmp_path, packed, white_noise):
    other = pack(make(tmp_path / "two", ["z"], white_noise), str(tmp_path / "other"), RATE)
    shutil.copy(other / "identities.jsonl.gz", Path(packed.root))
    with pytest.raises(InputError, match="does not fit 'a'"):
        packed_identities(packed.all_tracks())


def test_two_packs_are_joined_and_each_keeps_its_name(tmp_path, packed, white_noise):
    second = pack(make(tmp_path / "two", ["d", "e"], white_noise, 10), str(tmp_path / "second"), RATE)
    joined = Packed(root=[packed.root, str(second)])
    tracks = joined.all_tracks()
    assert [track.track_id for track in tracks] == ["a", "b", "c", "d", "e"]
    assert [Path(track.source).name for track in tracks] == ["pack"] * 3 + ["second"] * 2
    assert joined.label == "pack+second"
    assert len(packed_identities(tracks).recordings) == 6
    alone = Packed(root=str(second)).all_tracks()
    np.testing.assert_array_equal(tracks[3].slots[0].read(0, 500), alone[0].slots[0].read(0, 500))


def test_packs_that_share_a_track_or_differ_in_rate_are_not_joined(tmp_path, corpus, packed, white_noise):
    again = pack(corpus, str(tmp_path / "again"), RATE)
    with pytest.raises(InputError, match="'a' occurs in .*pack and in .*again"):
        Packed(root=[packed.root, str(again)]).all_tracks()
    slow = pack(make(tmp_path / "two", ["d"], white_noise), str(tmp_path / "slow"), 8000)
    with pytest.raises(InputError, match="pack is packed at 16000 Hz and .*slow at 8000 Hz"):
        Packed(root=[packed.root, str(slow)]).all_tracks()


def test_exclusions_hold_for_packs_too(tmp_path, packed):
    (tmp_path / "out.txt").write_text("b\tnot wanted\n")
    left = Packed(root=packed.root, exclusions=str(tmp_path / "out.txt"))
    assert [track.track_id for track in left.all_tracks()] == ["a", "c"]


def test_a_root_that_is_no_pack_is_refused(tmp_path, packed):
    with pytest.raises(InputError, match="dataset=packed needs dataset.root"):
        Packed().all_tracks()
    with pytest.raises(InputError, match="corpus holds no pack.json"):
        Packed(root=str(tmp_path / "corpus")).all_tracks()
    shard = Path(packed.root) / "shards" / "00000.pcm"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="00000.pcm: has .* bytes instead of"):
        packed.all_tracks()


def test_a_url_is_for_one_pack_of_chunks(packed):
    with pytest.raises(InputError, match="no pack of format=litdata"):
        Packed(root=packed.root, url="s3://bucket/x").all_tracks()
    with pytest.raises(InputError, match="single dataset.root"):
        Packed(root=[packed.root, packed.root], url="s3://bucket/x").all_tracks()


def test_the_command_line_composes_it(packed):
    run = compose("pretrain", ["dataset=packed", f"dataset.root={packed.root}"])
    assert [track.track_id for track in run.dataset.all_tracks()] == ["a", "b", "c"]
