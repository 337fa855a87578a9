"""A pack in chunks of litdata gives the samples of the same pack in plain shards, from here and from elsewhere."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.datasets.folder import Folder
from musictf.errors import InputError
from musictf.packing import streamed_recordings as streamed
from musictf.packing.format import Slot
from musictf.packing.make_pack import pack, verify
from musictf.packing.packed import Packed

RATE = 4000  # of the packs; fingerprints need files of 8 kHz


@pytest.fixture
def folders(tmp_path, white_noise):
    """The same corpus packed both ways: recordings shorter than a segment, of whole ones, and of many."""
    pytest.importorskip("litdata")
    (tmp_path / "in").mkdir()
    for number, seconds in enumerate((3, 10, 47.3, 20)):
        soundfile.write(tmp_path / "in" / f"{number}.wav", white_noise(int(seconds * 8000), number), 8000)
    corpus = Folder(root=str(tmp_path / "in"))
    return pack(corpus, str(tmp_path / "plain"), RATE), pack(corpus, str(tmp_path / "chunks"), RATE, form="litdata")


def pairs(folders, url=None):
    tracks = Packed(root=str(folders[0])).all_tracks(), Packed(root=str(folders[1]), url=url).all_tracks()
    return [(one.slots[0], two.slots[0]) for one, two in zip(*tracks, strict=True)]


def test_both_formats_give_the_same_excerpts(folders):
    generator = np.random.default_rng(0)
    for plain, chunked in pairs(folders):
        for attribute in ("num_samples", "sample_rate", "gain", "peak", "digest", "levels"):
            assert getattr(plain, attribute) == getattr(chunked, attribute)
        for _ in range(20):
            length = int(generator.integers(0, min(25 * RATE, plain.num_samples) + 1))
            start = int(generator.integers(0, plain.num_samples - length + 1))
            np.testing.assert_array_equal(chunked.read(start, length), plain.read(start, length))
        assert len(chunked.read(chunked.num_samples, 0)) == 0
        with pytest.raises(InputError, match="of a recording of"):
            chunked.read(chunked.num_samples - 5, 6)
    assert verify(str(folders[1])) == 4
    assert not (folders[1] / "shards").exists()


def test_chunks_elsewhere_are_read_from_there(tmp_path, folders):
    shutil.move(folders[1] / "chunks", tmp_path / "bucket")
    with pytest.raises(InputError, match="chunk-0-0.bin: is missing"):
        pairs(folders)
    for plain, chunked in pairs(folders, f"local:{tmp_path / 'bucket'}"):
        np.testing.assert_array_equal(chunked.read(5, RATE), plain.read(5, RATE))


def times_opened(slot):
    slot.read(0, 10)
    return streamed._dataset.cache_info().misses


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_other_processes_open_the_chunks_for_themselves(folders):
    plain, chunked = pairs(folders)[2]
    chunked.read(0, 10)
    assert pickle.loads(pickle.dumps(chunked)) == chunked
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap(Slot.read, [(chunked, start, 1000) for start in (0, 39_500, 90_000)])
        before = streamed._dataset.cache_info().misses
        opened = pool.map(times_opened, [chunked] * 2)
    for start, samples in zip((0, 39_500, 90_000), found, strict=True):
        np.testing.assert_array_equal(samples, plain.read(start, 1000))
    assert all(count > before for count in opened)


def test_chunks_that_are_cut_or_gone_are_told_in_a_line(folders):
    (chunk,) = (path for path in (folders[1] / "chunks").iterdir() if path.suffix == ".bin")
    _, chunked = pairs(folders)[0]
    chunk.unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        chunked.read(0, 100)
    assert "\n" not in str(caught.value)
    chunk.write_bytes(b"\0" * 10)
    with pytest.raises(InputError, match=r"\.bin: has 10 bytes instead of"):
        Packed(root=str(folders[1])).all_tracks()


def test_chunks_of_an_unfinished_pack_are_made_anew(tmp_path, folders, monkeypatch):
    corpus = Folder(root=str(tmp_path / "in"))
    with monkeypatch.context() as patch:
        patch.setattr("musictf.packing.index.write_atomically", stop_at("pack.json"))
        with pytest.raises(KeyboardInterrupt):
            pack(corpus, str(tmp_path / "again"), RATE, form="litdata")
    assert (tmp_path / ".again.packing" / "chunks" / "index.json").is_file()
    again = pack(corpus, str(tmp_path / "again"), RATE)  # and as plain shards, after all
    names = {path.name for path in again.iterdir()}
    assert names == {"pack.json", "index.jsonl", "identities.jsonl.gz", "shards"}
    assert verify(str(again)) == 4


def stop_at(name):
    from musictf.files import write_atomically

    def write(path, content):
        if Path(path).name == name:
            raise KeyboardInterrupt
        write_atomically(path, content)

    return write


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(InputError, match=r"pip install musictf\[shards\]"):
        streamed.litdata()
