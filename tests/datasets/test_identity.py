"""Identities: lossless copies have one sound, what was decoded once is kept, and a list comes back as it was."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from musictf.audio.fingerprint import fingerprint
from musictf.datasets import identity
from musictf.datasets.base import Track
from musictf.datasets.identity import Identities, identities, read_identities, write_identities
from musictf.errors import InputError
from musictf.files import file_digest

RATE = 16_000


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def waveform(white_noise):
    return white_noise(3 * RATE)


def listed(*paths, **options):
    return identities([Track(track_id=path.name, audio=path) for path in paths], **options).recordings


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 1 << 16), ("PCM_24", 1 << 8)])
def test_a_lossless_copy_has_the_same_sound_and_another_file(tmp_path, waveform, subtype, step):
    paths = [tmp_path / name for name in ("a.wav", "b.flac", "c.aiff")]
    samples = (np.stack([waveform, -waveform], axis=1) * (2**31 / step)).astype(np.int32) * step
    for path in paths:
        soundfile.write(path, samples, RATE, subtype=subtype)
    found = listed(*paths)
    assert len({one.audio for one in found}) == 1
    assert len({one.file for one in found}) == 3
    assert [one.file for one in found] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_the_sound_is_the_digest_of_what_the_docstring_says(tmp_path, waveform):
    stereo = np.stack([waveform, 0.5 * waveform], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="PCM_16")
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    expected = hashlib.sha256(b"16000 2 " + samples.astype("<i2").tobytes()).hexdigest()
    assert listed(tmp_path / "a.wav")[0].audio == expected


def test_other_samples_rates_and_channels_are_another_sound(tmp_path, waveform):
    other = waveform.copy()
    other[1000] += 2 / 32768
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    soundfile.write(tmp_path / "sample.wav", other, RATE)
    soundfile.write(tmp_path / "rate.wav", waveform, RATE + 1)
    soundfile.write(tmp_path / "stereo.wav", np.stack([waveform, waveform], axis=1), RATE)
    soundfile.write(tmp_path / "shorter.wav", waveform[:-1], RATE)
    assert len({one.audio for one in listed(*tmp_path.glob("*.wav"))}) == 5


def test_every_recording_of_a_track_is_listed(tmp_path, waveform):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", waveform[number:], RATE)
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    track = Track(track_id="a", audio=files[0], versions=tuple(files[1:]), split="valid")
    found = identities([track])
    assert [(one.track_id, one.split, one.file) for one in found.recordings] == [
        ("a", "valid", file_digest(path)) for path in files
    ]
    assert [one.file for one in identities([track], versions=False).recordings] == [file_digest(files[0])]
    np.testing.assert_array_equal(found.recordings[2].fingerprint, fingerprint(files[2]))


def test_files_only_decodes_nothing(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no audio")
    (one,) = listed(tmp_path / "a.wav", level="files")
    assert (one.file, one.audio, len(one.fingerprint)) == (file_digest(tmp_path / "a.wav"), "", 0)


@pytest.mark.parametrize(
    ("group", "labels", "names"),
    [
        ("Album", {"artist": " The Band "}, ("album", "the band")),
        ("", {}, ()),
        ("  ", {"artist": ""}, ()),
        ("A1", {"artist": None}, ()),  # the track's own name is nobody else's
        ("Straße", {"artist": "STRASSE"}, ("strasse",)),
    ],
)
def test_names_are_folded_and_say_something(tmp_path, group, labels, names):
    (tmp_path / "a.wav").write_bytes(b"a")
    track = Track(track_id="a1", audio=tmp_path / "a.wav", group=group, labels=labels)
    assert identities([track], "files").recordings[0].names == names


def test_a_list_comes_back_as_it_was(tmp_path, waveform):
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    track = Track(track_id="ä/1", audio=tmp_path / "a.wav", group="Gruppe", split="test")
    before = identities([track])
    digest = write_identities(tmp_path / "list.jsonl.gz", before)
    assert digest == file_digest(tmp_path / "list.jsonl.gz")
    after = read_identities(tmp_path / "list.jsonl.gz")
    assert (after.level, after.fingerprints) == ("full", before.fingerprints)
    for name in ("track_id", "split", "file", "audio", "names"):
        assert getattr(after.recordings[0], name) == getattr(before.recordings[0], name)
    np.testing.assert_array_equal(after.recordings[0].fingerprint, before.recordings[0].fingerprint)
    assert write_identities(tmp_path / "again.jsonl.gz", after) == digest
    assert (tmp_path / "list.jsonl.gz").read_bytes()[4:8] == bytes(4)  # no time of writing in it


def test_what_was_decoded_is_not_decoded_again(tmp_path, waveform, monkeypatch):
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    (first,) = listed(tmp_path / "a.wav")
    (tmp_path / "moved.wav").write_bytes((tmp_path / "a.wav").read_bytes())

    def decode(path):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(identity, "decoded_blocks", decode)
        (second,) = listed(tmp_path / "moved.wav")
        assert second.audio == first.audio
        np.testing.assert_array_equal(second.fingerprint, first.fingerprint)
    soundfile.write(tmp_path / "a.wav", -waveform, RATE)  # the same name, other sound
    assert listed(tmp_path / "a.wav")[0].audio != first.audio


def test_copies_of_one_file_are_decoded_once(tmp_path, waveform, monkeypatch):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", waveform, RATE)
    decoded, decode = [], identity.decoded_blocks
    monkeypatch.setattr(identity, "decoded_blocks", lambda path: decoded.append(path) or decode(path))
    found = listed(*sorted(tmp_path.glob("*.wav")))
    assert len(decoded) == 1
    assert len({one.audio for one in found}) == 1


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"half"])
def test_a_damaged_cache_is_made_again(tmp_path, waveform, damage):
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    (first,) = listed(tmp_path / "a.wav")
    (kept,) = (path for path in (tmp_path / "cache" / "identities").rglob("*") if path.is_file())
    kept.write_bytes(damage)
    (second,) = listed(tmp_path / "a.wav")
    assert second.audio == first.audio
    np.testing.assert_array_equal(second.fingerprint, first.fingerprint)
    assert kept.read_bytes() != damage


def test_what_was_done_before_a_stop_is_kept(tmp_path, waveform):
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"b.wav: cannot be decoded"):
        listed(tmp_path / "a.wav", tmp_path / "b.wav")
    assert len([path for path in (tmp_path / "cache" / "identities").rglob("*") if path.is_file()]) == 1


def test_processes_at_once_do_not_disturb_each_other(tmp_path, white_noise):
    for number in range(20):
        soundfile.write(tmp_path / f"{number:02}.wav", white_noise(RATE, seed=number), RATE)
    program = (
        "import sys; from pathlib import Path; from musictf.datasets.base import Track\n"
        "from musictf.datasets.identity import identities\n"
        "tracks = [Track(track_id=p.name, audio=p) for p in sorted(Path(sys.argv[1]).glob('*.wav'))]\n"
        "print([(one.audio, len(one.fingerprint)) for one in identities(tracks).recordings], 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(3)]
    answers = {process.communicate()[0].decode() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    found = listed(*sorted(tmp_path.glob("*.wav")))
    assert answers == {f"{[(one.audio, len(one.fingerprint)) for one in found]} False\n"}
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.wav: cannot be read"):
        listed(tmp_path / "gone.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"no gzip", "damaged"),
        (
            gzip.compress(
                b'{"format": "musictf-identities/1", "level": "full", "fingerprints": 1}\n{"x": 1}\n', mtime=0
            ),
            "damaged",
        ),
        (gzip.compress(b"[]\n", mtime=0), "damaged"),
        (gzip.compress(json.dumps({"format": "other/2"}).encode(), mtime=0), "format 'other/2'"),
        (gzip.compress(b'{"format": "musictf-identities/1"}\n' * 100, mtime=0)[:-20], "damaged"),
    ],
)
def test_a_list_that_does_not_read_is_refused(tmp_path, content, message):
    (tmp_path / "list.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_identities(tmp_path / "list.jsonl.gz")


def test_an_empty_corpus_has_an_empty_list(tmp_path):
    assert identities([]).recordings == []
    write_identities(tmp_path / "list.jsonl.gz", Identities([]))
    assert read_identities(tmp_path / "list.jsonl.gz").recordings == []
