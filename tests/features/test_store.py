"""The store: an entry is whole or not there, what is wrong with one is found, and only what is doomed is deleted."""

import json
import os
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from musictf.errors import InputError
from musictf.features.store import EntryWriter, Extractor, extractors, is_intact, prune, read_entry, store_folder

DAY = 86_400


def write(path, num_rows=5, seed=0):
    """An entry with an odd number of bytes before its float64 tensor."""
    values = np.random.default_rng(seed).normal(size=(num_rows, 3)).astype(np.float16)
    writer = EntryWriter(path, {"sequence": (values.shape, "float16"), "times": ((num_rows,), "float64")})
    writer.append("sequence", values)
    writer.append("times", np.arange(num_rows))
    writer.finish()
    return values


def temporaries(folder):
    return sorted(path for path in folder.rglob(".*") if path.is_file())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store" / "entry.safetensors"
    write(path)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 2, 3), (1, 1, 1), (5,), ()])
def test_an_entry_is_a_safetensors_file_whatever_the_pieces_it_was_written_in(tmp_path, dtype, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    other = np.arange(9.0)
    writer = EntryWriter(tmp_path / "e.safetensors", {"a": (shape, dtype), "b": ((9,), "float64")})
    writer.append("b", other[:2])
    for row in np.atleast_1d(values):  # one tensor's rows between another's
        writer.append("a", row)
    writer.append("b", other[2:4])
    writer.append("b", torch.from_numpy(other[4:]))
    writer.finish()
    for tensors in (load_file(str(tmp_path / "e.safetensors")), read_entry(tmp_path / "e.safetensors")):
        assert torch.equal(tensors["a"], torch.from_numpy(values))
        assert torch.equal(tensors["b"], torch.from_numpy(other))
    assert is_intact(tmp_path / "e.safetensors")


def test_rows_are_rounded_to_the_type_of_their_tensor(tmp_path):
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    writer = EntryWriter(tmp_path / "e.safetensors", {"a": ((4, 3), "float16")})
    writer.append("a", rows)
    writer.finish()
    assert torch.equal(read_entry(tmp_path / "e.safetensors")["a"], rows.half())


def test_nothing_is_there_before_the_end(tmp_path):
    path = tmp_path / "e.safetensors"
    writer = EntryWriter(path, {"a": ((2,), "float32")})
    writer.append("a", [1.0])
    assert read_entry(path) is None
    assert not is_intact(path)
    writer.append("a", [2.0])
    assert not path.exists()
    writer.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("rows", [[], [1.0], [1.0, 2.0, 3.0]])
def test_an_entry_that_was_not_written_to_its_end_is_an_error_and_leaves_nothing(tmp_path, rows):
    writer = EntryWriter(tmp_path / "e.safetensors", {"a": ((2,), "float32"), "b": ((), "float64")})
    writer.append("a", rows)
    writer.append("b", 1.0)
    with pytest.raises(RuntimeError, match="e.safetensors: a not written"):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_entry_leaves_nothing_and_harms_nobody(path):
    before = path.read_bytes()
    writer = EntryWriter(path, {"a": ((2,), "float32")})
    writer.append("a", [1.0])
    writer.abandon()
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_two_writers_of_one_entry_do_not_mix(tmp_path):
    path = tmp_path / "e.safetensors"
    first, second = (EntryWriter(path, {"a": ((2,), "float32")}) for _ in range(2))
    for value in (1.0, 2.0):
        first.append("a", [value])
        second.append("a", [10 * value])
    second.finish()
    assert read_entry(path)["a"].tolist() == [10.0, 20.0]
    first.finish()
    assert read_entry(path)["a"].tolist() == [1.0, 2.0]
    assert is_intact(path)


def test_an_entry_that_is_being_read_survives_its_deletion(path):
    wanted = load_file(str(path))["sequence"]
    found = read_entry(path)["sequence"]
    path.unlink()
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("keep", [0, 5, 8, 60, 0.5, 0.99])
def test_a_truncated_entry_is_none(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    assert read_entry(path) is None
    assert not is_intact(path)


@pytest.mark.parametrize(
    "content",
    [b"half of it", b"\xff" * 200, b"\x00" * 200, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'],
    ids=["text", "ones", "zeros", "list", "no digest"],
)
def test_what_is_no_entry_is_none(tmp_path, content):
    (tmp_path / "e.safetensors").write_bytes(content)
    assert read_entry(tmp_path / "e.safetensors") is None
    assert not is_intact(tmp_path / "e.safetensors")


def test_a_foreign_file_has_no_checksum(tmp_path):
    save_file({"a": torch.zeros(3)}, str(tmp_path / "e.safetensors"))
    assert not is_intact(tmp_path / "e.safetensors")
    assert not is_intact(tmp_path / "missing.safetensors")


def test_the_checksum_finds_every_flipped_byte(path):
    content = path.read_bytes()
    assert is_intact(path)
    start = 8 + int.from_bytes(content[:8], "little")
    names = [content.index(text) for text in (b'"sequence"', b'"F16"', b"data_offsets", b"checksum")]
    for position in [*range(start, len(content)), 0, *(name + 1 for name in names)]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert not is_intact(path), position
    path.write_bytes(content)
    assert is_intact(path)


def test_the_checksum_is_that_of_the_content(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / f"{name}.safetensors", seed=seed)
    digests = []
    for name in "abc":
        with safe_open(str(tmp_path / f"{name}.safetensors"), framework="pt") as file:
            digests.append(file.get_tensor("checksum").tolist())
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 16
    assert set(digests[0]) != {0}


def test_an_extractor_is_told_by_all_that_shapes_features_in_any_order():
    about = {"backbone": "abc", "kind": "mel", "version": 2}
    extractor = Extractor.of(about)
    assert extractor.folder == Extractor.of(dict(reversed(about.items()))).folder
    assert extractor.folder.parent == store_folder()
    assert json.loads((extractor.folder / "about.json").read_text()) == about
    others = [about | change for change in ({"backbone": "abd"}, {"version": 3}, {"layers": [0]})]
    assert len({extractor.folder, *(Extractor.of(other).folder for other in others)}) == 4


def test_an_entry_is_named_by_the_content_of_the_audio(tmp_path):
    extractor = Extractor.of({"kind": "mel"})
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    assert extractor.entry(first) == extractor.entry(second)
    assert extractor.entry(first).parent == extractor.folder
    before = extractor.entry(first)
    first.write_bytes(b"two")
    os.utime(first, ns=(7, 7))
    assert extractor.entry(first) != before
    assert Extractor.of({"kind": "mfcc"}).entry(second).name == before.name


@pytest.fixture
def filled():
    """Three extractors: 3 entries of mel, 2 of a pretrained backbone, an old version of it with 1."""
    abouts = [
        ({"backbone": "aaaa", "kind": "mel", "version": 2}, 3),
        ({"backbone": "bbbb", "kind": "pretrained", "version": 2}, 2),
        ({"backbone": "bbbb", "kind": "pretrained", "version": 1}, 1),
    ]
    filled = []
    for about, number in abouts:
        extractor = Extractor.of(about)
        for k in range(number):
            write(extractor.folder / f"{k}.safetensors", seed=k)
        filled.append(extractor)
    return filled


def count(filled):
    return [len(extractor.entries()) if extractor.folder.exists() else None for extractor in filled]


def test_every_extractor_is_listed_with_its_finished_entries(filled):
    unfinished = EntryWriter(filled[0].folder / "unfinished.safetensors", {"a": ((), "float64")})
    found = {extractor.folder: extractor for extractor in extractors()}
    assert set(found) == {extractor.folder for extractor in filled}
    for extractor in filled:
        assert found[extractor.folder].about == extractor.about
    assert count(filled) == [3, 2, 1]
    assert [path.name for path in filled[0].entries()] == [f"{k}.safetensors" for k in range(3)]
    unfinished.abandon()


def test_an_empty_store_has_no_extractor():
    assert list(extractors()) == []
    assert prune() == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "left"),
    [(None, [None] * 3), ("mel", [None, 2, 1]), ("bb", [3, None, None]), ("pretrained", [3, None, None])],
)
def test_what_is_named_is_deleted_with_its_folder(filled, wanted, left):
    size = sum(path.stat().st_size for k in range(3) if left[k] is None for path in filled[k].entries())
    assert prune(wanted) == (sum((3, 2, 1)[k] for k in range(3) if left[k] is None), size)
    assert count(filled) == left


def test_an_extractor_is_named_by_its_folder_too(filled):
    prune(filled[2].folder.name)
    assert count(filled) == [3, 2, None]


def test_a_name_that_nothing_bears_is_an_error(filled):
    with pytest.raises(InputError, match="no features of 'cccc'"):
        prune("cccc")
    assert count(filled) == [3, 2, 1]


def test_only_what_nobody_has_read_or_written_for_so_long_is_deleted(filled):
    now = time.time()
    old, read, *_ = filled[0].entries()
    os.utime(old, (now - 31 * DAY, now - 40 * DAY))
    os.utime(read, (now - 1 * DAY, now - 40 * DAY))
    (only,) = filled[2].entries()
    os.utime(only, (now - 40 * DAY, now - 40 * DAY))
    assert prune(unused_days=30)[0] == 2
    assert count(filled) == [2, 2, None]
    assert not old.exists()
    assert read.exists()
    assert prune("mel", unused_days=0.5)[0] == 1
    assert count(filled) == [1, 2, None]


def test_only_what_fails_its_checksum_is_deleted_where_that_is_asked(filled):
    entry = filled[0].entries()[1]
    content = bytearray(entry.read_bytes())
    content[-3] ^= 4
    entry.write_bytes(content)
    (only,) = filled[2].entries()
    only.write_bytes(only.read_bytes()[:-1])
    assert prune(broken=True)[0] == 2
    assert count(filled) == [2, 2, 0]  # an empty folder stays: an extraction may be about to fill it
    assert not entry.exists()


@pytest.mark.parametrize("how", [{}, {"broken": True}, {"unused_days": 30}])
def test_what_dead_processes_left_is_deleted_after_a_day_and_the_work_of_others_never(filled, how):
    writers = [EntryWriter(filled[0].folder / f"{k}.safetensors", {"a": ((), "float64")}) for k in "xy"]
    dead, alive = temporaries(filled[0].folder)
    os.utime(dead, (time.time() - 2 * DAY,) * 2)
    prune(**how)
    assert temporaries(filled[0].folder) == [alive]
    writer = next(writer for writer in writers if writer._temporary == alive)
    writer.append("a", 1.0)
    writer.finish()
    assert is_intact(writer.path)
    for writer in writers:
        writer.abandon()


def test_files_that_others_rename_or_delete_meanwhile_do_not_stop_it(filled):
    """A link to nothing is listed but cannot be looked at, as a file that has just gone."""
    for name in (".gone.tmp", "gone.safetensors"):
        (filled[0].folder / name).symlink_to("nothing")
    assert prune(unused_days=30) == (0, 0)
    size = sum(path.stat().st_size for extractor in filled for path in extractor.folder.glob("[0-9].safetensors"))
    assert prune()[1] == size


def test_an_empty_name_deletes_nothing(filled):
    with pytest.raises(InputError, match="no name"):
        prune("")
    assert count(filled) == [3, 2, 1]
