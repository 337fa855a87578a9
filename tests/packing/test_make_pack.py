"""Packing: what is packed is what the files hold, all of it or nothing, and a run that was killed goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.audio.io import audio_info, read_excerpt, track_peak
from musictf.cli import main
from musictf.datasets.folder import Folder
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.packing import make_pack as packing
from musictf.packing.make_pack import pack, summary, verify
from musictf.packing.packed import Packed

RATE = 16_000
STEP = 1 / 32768


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left_beside(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}"))


@pytest.fixture
def mixed(tmp_path, white_noise):
    """A manifest of files of several rates, channels and levels, one with a version, one above full scale."""
    root = tmp_path / "mixed"
    root.mkdir()
    waveforms = {
        "a.wav": (white_noise(3 * RATE, 1), RATE, "PCM_16"),
        "b.flac": (white_noise(5 * 44_100, 2).reshape(-1, 1) * [[1.0, 0.3]], 44_100, "PCM_16"),
        "c.wav": (white_noise(4 * 22_050, 3, 0.6) * 2, 22_050, "FLOAT"),
        "d.ogg": (white_noise(2 * 48_000, 4), 48_000, "VORBIS"),
        "e.wav": (white_noise(2 * RATE, 5), RATE, "PCM_16"),
    }
    for name, (waveform, rate, subtype) in waveforms.items():
        soundfile.write(root / name, waveform, rate, subtype=subtype)
    lines = [
        {"track_id": "a", "audio": "a.wav", "split": "train", "group": "g", "versions": ["e.wav"], "tags": ["x"]},
        {"track_id": "b", "audio": "b.flac", "split": "valid", "artist": "Ann"},
        {"track_id": "c", "audio": "c.wav", "split": "test"},
        {"track_id": "d", "audio": "d.ogg", "split": "train"},
    ]
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Manifest(root=str(root))


@pytest.mark.parametrize("rate", [RATE, 22_050])
def test_packed_excerpts_are_those_of_the_files(tmp_path, mixed, rate):
    folder = pack(mixed, str(tmp_path / "out"), rate)
    tracks = Packed(root=str(folder)).all_tracks()
    for original, track in zip(mixed.all_tracks(), tracks, strict=True):
        assert len(track.slots) == 1 + len(original.versions)
        for path, slot in zip((original.audio, *original.versions), track.slots, strict=True):
            length = audio_info(path).num_samples(rate)
            assert (slot.num_samples, slot.sample_rate) == (length, rate)
            assert slot.peak == pytest.approx(track_peak(str(path)), abs=1e-6)
            for start, count in ((0, length), (length // 3, rate // 2), (length - 100, 100)):
                expected = read_excerpt(path, start, count, rate)
                # one step, and what resampling in other blocks rounds
                np.testing.assert_allclose(slot.read(start, count) * slot.gain, expected, atol=slot.gain + 1e-6)
    assert tracks[2].slots[0].gain > STEP  # the one above full scale
    assert {slot.gain for track in tracks if track.track_id != "c" for slot in track.slots} == {STEP}


def test_recordings_longer_than_a_block_have_no_seams(tmp_path, white_noise):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", white_noise(130 * 8000), 8000)
    folder = pack(Folder(root=str(tmp_path / "in")), str(tmp_path / "out"), 4000)
    (slot,) = Packed(root=str(folder)).all_tracks()[0].slots
    for start in (60 * 4000 - 500, 120 * 4000 - 500):
        expected = read_excerpt(tmp_path / "in" / "a.wav", start, 1000, 4000)
        np.testing.assert_allclose(slot.read(start, 1000) * slot.gain, expected, atol=STEP)


def test_a_pack_does_not_depend_on_the_number_of_threads(tmp_path, mixed, monkeypatch):
    folders = []
    for threads in (1, 4):
        monkeypatch.setattr("musictf.datasets.parallel.num_cores", lambda threads=threads: threads)
        folders.append(pack(mixed, str(tmp_path / f"out{threads}"), RATE, shard_gb=1e-4))
    assert contents(folders[0]) == contents(folders[1])


def test_a_track_is_never_split_over_shards(tmp_path, mixed):
    folder = pack(mixed, str(tmp_path / "out"), RATE, shard_gb=2e-4)  # 100 000 samples
    shards = [[slot.shard for slot in track.slots] for track in Packed(root=str(folder)).all_tracks()]
    assert shards == [[0, 0], [1], [2], [2]]  # 80 000; 80 000; 64 000 and 32 000
    sizes = {path.name: path.stat().st_size for path in (folder / "shards").iterdir()}
    assert sizes == {"00000.pcm": 160_000, "00001.pcm": 160_000, "00002.pcm": 192_000}
    one = pack(mixed, str(tmp_path / "tiny"), RATE, shard_gb=1e-9)
    assert len(list((one / "shards").iterdir())) == 4


def test_nothing_but_the_pack_is_left(tmp_path, mixed):
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    assert sorted(path.name for path in folder.iterdir()) == [
        "identities.jsonl.gz",
        "index.jsonl",
        "pack.json",
        "shards",
    ]
    assert left_beside(folder) == []


def test_only_the_splits_that_are_asked_for_and_no_excluded_track(tmp_path, mixed):
    (tmp_path / "out.txt").write_text("d\tbroken\n")
    corpus = Manifest(root=mixed.root, exclusions=str(tmp_path / "out.txt"))
    folder = pack(corpus, str(tmp_path / "out"), RATE, splits=["train", "test"])
    assert [track.track_id for track in Packed(root=str(folder)).all_tracks()] == ["a", "c"]
    with pytest.raises(InputError, match="dev unknown: any of train, valid, test"):
        pack(corpus, str(tmp_path / "other"), RATE, splits=["dev"])


def test_all_bad_files_are_listed_and_nothing_is_made_but_the_work_is_kept(tmp_path, mixed, capsys, monkeypatch):
    root = Path(mixed.root)
    (root / "d.ogg").unlink()
    good = (root / "c.wav").read_bytes()
    waveform, rate = soundfile.read(root / "c.wav", dtype="float32")
    waveform[40_000] = np.nan  # found only by decoding
    soundfile.write(root / "c.wav", waveform, rate, subtype="FLOAT")
    with pytest.raises(
        InputError, match=r"2 files cannot be packed .*data check dataset=manifest.*exclusions"
    ) as caught:
        pack(mixed, str(tmp_path / "out"), RATE)
    assert "\n" not in str(caught.value)
    printed = capsys.readouterr().out
    assert "d.ogg: does not exist" in printed
    assert "c.wav: holds NaN" in printed
    assert not (tmp_path / "out").exists()
    # the rest is not decoded again once the bad ones are left out
    (tmp_path / "bad.txt").write_text("b\tnot wanted\nd\tmissing\n")
    (root / "c.wav").write_bytes(good)
    decoded = []
    monkeypatch.setattr(
        packing, "read_excerpt", lambda path, *rest: decoded.append(path.name) or read_excerpt(path, *rest)
    )
    corpus = Manifest(root=mixed.root, exclusions=str(tmp_path / "bad.txt"))
    folder = pack(corpus, str(tmp_path / "out"), RATE)
    assert decoded == ["c.wav", "c.wav"]  # twice: it exceeds full scale
    assert left_beside(folder) == []
    monkeypatch.undo()
    assert contents(folder) == contents(pack(corpus, str(tmp_path / "fresh"), RATE))


def test_an_annotation_that_does_not_read_is_no_less_bad(tmp_path, mixed, capsys):
    root = Path(mixed.root)
    lines = (root / "manifest.jsonl").read_text().splitlines()
    (root / "b.lab").write_text("0 1 H:maj\n")
    lines[1] = json.dumps(json.loads(lines[1]) | {"chords": "b.lab"})
    (root / "manifest.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="1 files cannot be packed"):
        pack(mixed, str(tmp_path / "out"), RATE)
    assert "b.lab:1" in capsys.readouterr().out


def interrupt_after(monkeypatch, count):
    """Stop packing after a number of recordings, one of them half-written."""
    whole, seen = packing.store_recording, []

    def record(path, offset, rate, blocks, peak=None):
        seen.append(path)
        if len(seen) > count:
            with open(path, "r+b") as file:
                file.seek(2 * offset + 10)
                file.write(b"\x55" * 3000)
            raise KeyboardInterrupt
        return whole(path, offset, rate, blocks, peak)

    monkeypatch.setattr(packing, "store_recording", record)
    monkeypatch.setattr("musictf.datasets.parallel.num_cores", lambda: 1)
    return seen


def test_an_interrupted_pack_goes_on_to_the_same_pack_and_decodes_nothing_twice(tmp_path, mixed, monkeypatch):
    whole = contents(pack(mixed, str(tmp_path / "whole"), RATE, shard_gb=1e-4))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            pack(mixed, str(tmp_path / "out"), RATE, shard_gb=1e-4)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="not a folder"):
        Packed(root=str(tmp_path / "out")).all_tracks()
    for count in (1, 1):  # each killed while it wrote a line
        with open(tmp_path / ".out.packing" / "journal.jsonl", "a") as file:
            file.write('{"mark": "cut of')
        with monkeypatch.context() as patch:
            interrupt_after(patch, count)
            with pytest.raises(KeyboardInterrupt):
                pack(mixed, str(tmp_path / "out"), RATE, shard_gb=1e-4)
    with monkeypatch.context() as patch:
        seen = interrupt_after(patch, 99)
        folder = pack(mixed, str(tmp_path / "out"), RATE, shard_gb=1e-4)
    assert len(seen) == 1  # of five
    assert contents(folder) == whole
    assert left_beside(folder) == []


@pytest.mark.parametrize("shard_gb", [1.0, 1e-4])
def test_garbage_of_a_track_that_is_then_left_out_does_not_stay(tmp_path, mixed, monkeypatch, shard_gb):
    (tmp_path / "out.txt").write_text("d\tunwanted\n")
    less = Manifest(root=mixed.root, exclusions=str(tmp_path / "out.txt"))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            pack(mixed, str(tmp_path / "out"), RATE, shard_gb=shard_gb)
    found, whole = (pack(less, str(tmp_path / name), RATE, shard_gb=shard_gb) for name in ("out", "whole"))
    assert contents(found) == contents(whole)


def interrupted(monkeypatch, corpus, output, rate=RATE):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pack(corpus, output, rate)


def test_a_file_that_changed_is_decoded_again(tmp_path, mixed, monkeypatch, white_noise):
    interrupted(monkeypatch, mixed, str(tmp_path / "out"))
    path = Path(mixed.root) / "a.wav"
    before = path.stat()
    soundfile.write(path, white_noise(3 * RATE, 77), RATE, subtype="PCM_16")
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    assert contents(folder) == contents(pack(mixed, str(tmp_path / "whole"), RATE))


def test_what_was_decoded_at_another_rate_is_decoded_again(tmp_path, mixed, monkeypatch):
    interrupted(monkeypatch, mixed, str(tmp_path / "out"), 8000)
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    assert contents(folder) == contents(pack(mixed, str(tmp_path / "whole"), RATE))


@pytest.mark.parametrize("shard_gb", [1.0, 1e-4])
def test_a_journal_without_its_samples_is_not_believed(tmp_path, mixed, monkeypatch, shard_gb):
    interrupted(monkeypatch, mixed, str(tmp_path / "out"))
    shutil.rmtree(tmp_path / ".out.packing" / "shards")
    assert verify(str(pack(mixed, str(tmp_path / "out"), RATE, shard_gb=shard_gb))) == 5


def test_a_killed_process_leaves_no_pack_and_the_next_one_finishes_it(tmp_path, mixed):
    code = (
        "import os, sys, time\nfrom musictf.packing import make_pack as packing\n"
        "from musictf.datasets.manifest import Manifest\n"
        "whole = packing.store_recording\n"
        "def store(*given):\n    stored = whole(*given)\n    os.write(1, b'one\\n')\n    time.sleep(0.3)\n"
        "    return stored\npacking.store_recording = store\n"
        "packing.pack(Manifest(root=sys.argv[1]), sys.argv[2], 16000)\n"
    )
    command = [sys.executable, "-c", code, str(mixed.root), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        journal = tmp_path / ".out.packing" / "journal.jsonl"
        while not (journal.is_file() and journal.read_text()):
            assert process.stdout.readline() == "one\n"  # not the end: the journal comes with the first recording
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.packing" / "journal.jsonl").read_text().count("\n") >= 1
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    assert contents(folder) == contents(pack(mixed, str(tmp_path / "whole"), RATE))


def test_two_processes_do_not_pack_the_same_folder(tmp_path, mixed):
    with packing._staging(tmp_path / "out"), pytest.raises(InputError, match="another process packs there"):
        pack(mixed, str(tmp_path / "out"), RATE)


def test_what_is_there_is_replaced_only_on_request_and_only_if_it_is_a_pack(tmp_path, mixed):
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    with pytest.raises(InputError, match="holds a pack already; overwrite=true"):
        pack(mixed, str(folder), 8000)
    pack(mixed, str(folder), 8000, overwrite=True)
    tracks = Packed(root=str(folder)).all_tracks()
    assert tracks[0].slots[0].sample_rate == 8000
    assert left_beside(folder) == []
    assert len(tracks[0].slots[0].read(0, 100)) == 100
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is there and no pack"):
        pack(mixed, str(tmp_path / "mine"), RATE, overwrite=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_decoded(tmp_path, mixed, monkeypatch):
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**7))
    monkeypatch.setattr(packing, "store_recording", lambda *given: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"needs 0\.\d GB, 0\.0 GB are free"):
        pack(mixed, str(tmp_path / "out"), RATE)


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"sample_rate": 16}, "no sample rate"), ({"shard_gb": 0}, "shard_gb=0"), ({"form": "zip"}, "pcm, litdata")],
)
def test_impossible_wishes_are_refused(tmp_path, mixed, given, reason):
    with pytest.raises(InputError, match=reason):
        pack(mixed, str(tmp_path / "out"), **given)


def test_an_output_that_cannot_be_written_is_told_in_a_line(tmp_path, mixed):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        pack(mixed, str(tmp_path / "file" / "out"), RATE)


def test_verifying_finds_a_sample_that_changed(tmp_path, mixed, capsys):
    folder = pack(mixed, str(tmp_path / "out"), RATE)
    assert verify(str(folder)) == 5
    path = folder / "shards" / "00000.pcm"
    content = bytearray(path.read_bytes())
    content[2 * (3 * RATE + 5)] ^= 1  # in the version of a
    path.write_bytes(content)
    with pytest.raises(InputError, match="1 of 5 recordings are damaged"):
        verify(str(folder))
    assert "  a\n" in capsys.readouterr().out


def test_the_command_packs_says_what_comes_next_and_verifies(tmp_path, mixed, capsys):
    keys = ["dataset=manifest", f"dataset.root={mixed.root}", "front_end.sample_rate=8000", "front_end.f_max=4000"]
    main(["data", "pack", *keys, f"output={tmp_path / 'out'}", "splits=[train,valid]", "shard_gb=0.5"])
    printed = capsys.readouterr().out
    assert "3 tracks, 4 recordings, 0.00 hours at 8000 Hz" in printed
    assert f"next: musictf pretrain dataset=packed dataset.root={tmp_path / 'out'}" in printed
    main(["data", "pack", f"root={tmp_path / 'out'}", "verify=true"])
    assert "4 recordings are what was packed" in capsys.readouterr().out
    assert summary(tmp_path / "out") in printed


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["dataset=folder"],
        ["output=x", "sample_rate=high"],
        ["output=x", "overwrite=yes"],
        ["output=x", "spilts=[train]"],
        ["root=x"],
        ["root=x", "verify=1"],
        ["root=x", "verify=true", "overwrite=true"],
    ],
)
def test_a_command_that_makes_no_sense_is_one_line_and_status_2(keys, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["data", "pack", *keys])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
