"""Leakage: every level is detected, nothing is reported without overlap, and unknown is reported as unknown."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import soundfile

from musictf.datasets.base import Track
from musictf.datasets.identity import FILE_NAME, Identities, identities, write_identities
from musictf.errors import InputError
from musictf.evaluation import leakage
from musictf.evaluation.leakage import LEVELS, check_leakage, overlap, pretrained_identities
from musictf.models.backbone import Backbone, backbone_file, load_backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig

RATE = 16_000


def listed(path):
    """The list that a backbone file, or the one in a run folder, carries."""
    return pretrained_identities(load_backbone(path), backbone_file(path))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sounds():
    """Four recordings of 15 s: short tones of random pitch, no two alike."""

    def sound(seed):
        generator = np.random.default_rng(seed)
        time = np.arange(RATE // 4) / RATE
        tones = [np.sin(2 * np.pi * 200 * 2 ** generator.uniform(0, 4) * time) * np.exp(-9 * time) for _ in range(180)]
        waveform = 0.01 * generator.standard_normal(15 * RATE + RATE)
        for tone in tones:
            start = generator.integers(0, 15 * RATE)
            waveform[start : start + len(tone)] += 0.2 * tone
        return waveform[: 15 * RATE].astype(np.float32)

    return [sound(seed) for seed in range(5)]


@pytest.fixture
def folder(tmp_path, sounds):
    """The pretraining corpus (a, b with a version, c) and copies of it at every level."""
    for name, sound in zip("abcd", sounds, strict=False):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
    soundfile.write(tmp_path / "version.wav", sounds[4], RATE)
    (tmp_path / "a_moved.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    soundfile.write(tmp_path / "b.flac", soundfile.read(tmp_path / "b.wav", dtype="int16")[0], RATE)
    soundfile.write(tmp_path / "c.ogg", 0.1 * sounds[2][2 * RATE + 77 :], RATE)
    soundfile.write(tmp_path / "version.mp3", 0.5 * sounds[4], RATE)
    return tmp_path


@pytest.fixture
def seen(folder):
    return [
        Track(track_id="a", audio=folder / "a.wav", group="Ann"),
        Track(track_id="b", audio=folder / "b.wav", group="b", versions=(folder / "version.wav",)),
        Track(track_id="c", audio=folder / "c.wav", labels={"artist": "Carl"}),
    ]


def probed(folder, split="test"):
    """One track for each level, one with nothing in common."""
    return [
        Track(track_id="same file", audio=folder / "a_moved.wav", split=split, group="ann"),
        Track(track_id="same sound", audio=folder / "b.flac", split=split),
        Track(track_id="same recording", audio=folder / "c.ogg", split=split),
        Track(track_id="same version", audio=folder / "version.mp3", split=split),
        Track(track_id="same artist", audio=folder / "d.wav", split=split, group=" CARL"),
        Track(track_id="b", audio=folder / "d.wav", split=split, group="b"),  # an equal track_id is no overlap
    ]


def levels(leaks):
    return {entry.track_id: (entry.level, entry.partner) for entry in leaks.overlaps}


@pytest.fixture
def backbone(tmp_path):
    """Maker of a run folder whose backbone carries the list of some tracks."""

    def make(tracks, level="full", name="run"):
        path = tmp_path / name / "backbone.safetensors"
        note = None
        if tracks is not None:
            digest = write_identities(path.with_name(FILE_NAME), identities(tracks, level))
            note = {"file": FILE_NAME, "digest": digest, "level": level}
        save_backbone(Backbone(ViT1DConfig(depth=1, embed_dim=16, num_heads=2)), path, {"identities": note})
        return path

    return make


def test_the_strongest_level_of_every_track_is_found(folder, seen):
    leaks = overlap(identities(seen), identities(probed(folder)))
    assert levels(leaks) == {
        "same file": ("file", "a"),
        "same sound": ("audio", "b"),
        "same recording": ("recording", "c"),
        "same version": ("recording", "b"),
        "same artist": ("group", "c"),
    }
    assert leaks.tracks == {"same file", "same sound", "same recording", "same version"}
    assert leaks.counts == {"test": {"file": 1, "audio": 1, "recording": 2, "group": 1}}
    assert (leaks.totals, leaks.pretrained, leaks.compared) == ({"test": 6}, 3, LEVELS)
    scores = {entry.track_id: entry.score for entry in leaks.overlaps}
    assert scores["same file"] == scores["same sound"] == 1.0
    assert 0.5 <= scores["same recording"] < 1.0
    assert scores["same artist"] is None


def test_nothing_in_common_is_nothing_found(folder, seen):
    leaks = overlap(identities(seen), identities(probed(folder)[-1:]))
    assert leaks.overlaps == []
    assert leaks.tracks == set()
    assert leaks.is_known


def test_names_that_are_missing_do_not_agree(folder, seen):
    track = Track(track_id="x", audio=folder / "d.wav", group="", labels={"artist": ""})
    nameless = Track(track_id="y", audio=folder / "a.wav", group="", labels={"artist": None})
    assert overlap(identities([nameless]), identities([track])).overlaps == []


def test_files_that_were_not_decoded_are_not_compared_by_audio(folder, seen):
    tracks = probed(folder)
    for first, second in (("files", "full"), ("full", "files"), ("files", "files")):
        leaks = overlap(identities(seen, first), identities(tracks, second))
        assert leaks.compared == ("file", "group")
        assert levels(leaks) == {"same file": ("file", "a"), "same artist": ("group", "c")}
        assert "not compared: audio, recording" in leaks.summary()


def test_fingerprints_of_another_version_are_not_compared(folder, seen):
    known = identities(seen)
    leaks = overlap(Identities(known.recordings, fingerprints=known.fingerprints + 1), identities(probed(folder)))
    assert leaks.compared == ("file", "audio", "group")
    assert "same recording" not in levels(leaks)


def test_a_large_corpus_is_compared_in_parts(folder, seen, monkeypatch):
    whole = overlap(identities(seen), identities(probed(folder)))
    monkeypatch.setattr(leakage, "_INDEXED", 1)
    assert overlap(identities(seen), identities(probed(folder))) == whole


@pytest.mark.parametrize("indexed", [1, 1000])
def test_the_best_of_several_copies_is_the_partner(folder, sounds, monkeypatch, indexed):
    monkeypatch.setattr(leakage, "_INDEXED", indexed)
    soundfile.write(folder / "poor.mp3", sounds[2], RATE, compression_level=0.9, bitrate_mode="CONSTANT")
    known = [
        Track(track_id="poor", audio=folder / "poor.mp3"),
        Track(track_id="good", audio=folder / "c.wav"),
        Track(track_id="poor too", audio=folder / "poor.mp3"),
    ]
    soundfile.write(folder / "louder.wav", 1.5 * sounds[2], RATE)
    leaks = overlap(identities(known), identities([Track(track_id="x", audio=folder / "louder.wav")]))
    assert levels(leaks) == {"x": ("recording", "good")}


def test_a_report_names_counts_and_tracks(folder, seen, backbone, tmp_path, capsys):
    splits = {"train": probed(folder, "train")[:1], "test": probed(folder)[1:]}
    leaks = check_leakage(listed(backbone(seen)), splits, "warn")
    line = (
        "leakage: 3 (audio 1, recording 2) and 1 by name only of 5 test tracks, 1 (file 1) of 1 train tracks "
        "were pretrained on (3 pretraining tracks)"
    )
    assert leaks.summary() == line
    assert capsys.readouterr().err.strip() == line
    report = json.loads(json.dumps(leaks.to_json()))
    assert report["counts"]["test"] == {"file": 0, "audio": 1, "recording": 2, "group": 1}
    assert report["totals"] == {"train": 1, "test": 5}
    with open(leaks.write_csv(tmp_path), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["track_id"] for row in rows] == [entry.track_id for entry in leaks.overlaps]
    assert rows[0] == {"track_id": "same file", "split": "train", "level": "file", "partner": "a", "score": "1.000"}
    assert rows[-1]["score"] == ""


def test_fail_stops_at_test_tracks_seen_in_pretraining(folder, seen, backbone):
    with pytest.raises(InputError, match=r"4 \(file 1, audio 1, recording 2\) and 1 by name only of 6 test") as caught:
        check_leakage(listed(backbone(seen)), {"test": probed(folder)}, "fail")
    assert "\n" not in str(caught.value)
    assert "leakage=warn" in str(caught.value)
    assert "same file, same sound, same recording, ..." in str(caught.value)


def test_fail_lets_training_tracks_and_shared_names_pass(folder, seen, backbone):
    splits = {"train": probed(folder, "train")[:4], "test": probed(folder)[4:]}
    leaks = check_leakage(listed(backbone(seen)), splits, "fail")
    assert len(leaks.tracks) == 4
    assert leaks.hard("test") == []


def test_off_compares_nothing_and_an_unknown_policy_is_refused(tmp_path):
    assert check_leakage(None, {}, "off") is None
    with pytest.raises(InputError, match="leakage='maybe' is unknown: one of fail, warn, off"):
        check_leakage(None, {}, "maybe")


@pytest.mark.parametrize("how", ["never listed", "list lost", "another's list"])
def test_without_a_list_leakage_is_unknown_not_absent(folder, seen, backbone, how):
    path = backbone(None if how != "list lost" else seen)
    if how == "list lost":
        path.with_name(FILE_NAME).unlink()
    if how == "another's list":  # the backbone does not claim it
        write_identities(path.with_name(FILE_NAME), identities(seen))
    assert listed(path) is None
    leaks = check_leakage(listed(path), {"test": probed(folder)}, "warn")
    assert not leaks.is_known
    assert leaks.summary() == "leakage: unknown: the backbone carries no list of its corpus"
    assert leaks.to_json() == {
        "known": False,
        "compared": [],
        "pretrained": None,
        "totals": {"test": 6},
        "counts": None,
    }
    with pytest.raises(InputError, match="leakage=fail: unknown what the backbone was pretrained on"):
        check_leakage(listed(path), {"test": probed(folder)}, "fail")


def test_an_exchanged_list_is_refused(seen, backbone):
    path = backbone(seen)
    other = backbone(seen[:1], name="other")
    other.with_name(FILE_NAME).replace(path.with_name(FILE_NAME))
    with pytest.raises(InputError, match="not the list this backbone was saved with"):
        listed(path)


def test_the_list_is_found_from_the_run_folder_too(seen, backbone):
    leaks = listed(backbone(seen).parent)
    assert [identity.track_id for identity in leaks.recordings] == ["a", "b", "b", "c"]


def test_files_only_decodes_no_probed_track_either(folder, seen, backbone, monkeypatch):
    path = backbone(seen, "files")
    monkeypatch.setattr("musictf.datasets.identity.decoded_blocks", lambda path: pytest.fail("decoded"))
    leaks = check_leakage(listed(path), {"test": probed(folder)}, "warn")
    assert leaks.compared == ("file", "group")
