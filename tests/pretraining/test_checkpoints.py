"""Files that are whole or not there, and the newest of them found whatever happened to the others."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
import torch

from musictf.errors import InputError
from musictf.pretraining import checkpoints as subject
from musictf.pretraining.checkpoints import VerifiedCheckpointIO, choose, newest_valid, read_checkpoint, step_name


def content(step, best_step=0):
    return {
        "global_step": step,
        "state_dict": {"weight": torch.arange(1000.0) + step},
        "optimizer_states": [],
        "loops": {},
        "callbacks": {"KeepCheckpoints": {"best_score": 1.0, "best_step": best_step}},
    }


@pytest.fixture
def own(tmp_path):
    """The folder of checkpoints of a run, empty."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def save(folder, name, step, **more):
    VerifiedCheckpointIO().save_checkpoint(content(step, **more), folder / name)
    return folder / name


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def unsafe(path):
    torch.save(content(9) | {"callbacks": {"harm": os.system}}, path)


def weights_only(path):
    torch.save({"state_dict": {}}, path)


def steps(folder):
    found, damaged = newest_valid(folder)
    return None if found is None else (found.path.name, found.step), [path.name for path in damaged]


def test_what_is_written_can_be_read_and_leaves_nothing_else(own):
    path = save(own, "last.ckpt", 3, best_step=2)
    assert os.listdir(own) == ["last.ckpt"]
    assert read_checkpoint(path) == subject.Checkpoint(path, 3, 2)
    torch.testing.assert_close(torch.load(path, weights_only=True)["state_dict"], content(3)["state_dict"])


def no_space(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bad_disk(descriptor):
    os.pwrite(descriptor, b"?", os.fstat(descriptor).st_size // 2)


@pytest.mark.parametrize(("disk", "says"), [(no_space, "No space left"), (bad_disk, "read back")])
def test_a_failed_write_leaves_the_earlier_file_and_no_other(own, monkeypatch, disk, says):
    path = save(own, "last.ckpt", 3)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", disk)
    with pytest.raises(OSError, match=says):
        save(own, "last.ckpt", 4)
    assert os.listdir(own) == ["last.ckpt"]
    assert path.read_bytes() == before


def test_the_file_is_on_disk_and_read_back_before_it_takes_the_name_and_the_name_is_flushed_after(own, monkeypatch):
    acts = []
    for name in ("fsync", "replace"):
        act = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, act=act, name=name: (acts.append(name), act(*a)))
    read_back = subject._require_whole
    monkeypatch.setattr(subject, "_require_whole", lambda path: (acts.append("read"), read_back(path)))
    save(own, "last.ckpt", 3)
    assert acts == ["fsync", "read", "replace", "fsync"]


def test_the_newest_is_that_of_most_steps_whatever_its_name_or_age(own):
    assert newest_valid(own) == (None, {})
    save(own, "best.ckpt", 30)
    save(own, step_name(20), 20)
    save(own, "last.ckpt", 10)
    assert steps(own) == (("best.ckpt", 30), [])
    save(own, step_name(100), 100)
    save(own, step_name(1000), 1000)
    assert steps(own) == ((step_name(1000), 1000), [])
    save(own, "last.ckpt", 1000)
    assert steps(own) == (("last.ckpt", 1000), [])


@pytest.mark.parametrize("harm", [cut, empty, flip, lambda path: flip(path, 0.99), unsafe, weights_only])
def test_a_damaged_file_is_passed_over_and_named(own, harm):
    save(own, "best.ckpt", 10)
    harm(save(own, "last.ckpt", 20))
    assert steps(own) == (("best.ckpt", 10), ["last.ckpt"])


def test_every_flipped_bit_of_the_weights_is_seen(own):
    """The checksums that torch writes cover the tensors; without them a flipped bit would go on into training."""
    path = save(own, "last.ckpt", 1)
    data = path.read_bytes()
    start = data.index(content(1)["state_dict"]["weight"].numpy().tobytes())
    for place in range(start, start + 4000, 371):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert steps(own) == (None, ["last.ckpt"])


def test_auto_puts_the_folder_in_order_and_says_what_it_passed_over(own, capsys):
    save(own, "best.ckpt", 10)
    save(own, step_name(20), 20)
    cut(save(own, "last.ckpt", 25))
    flip(save(own, step_name(30), 30))
    leaving = own / ".last.ckpt.4711.tmp"
    leaving.write_bytes(b"half a checkpoint")
    (own.parent / ".metrics.csv.4711.tmp").write_bytes(b"half a file")
    chosen = choose("auto", own)
    message = capsys.readouterr().err
    assert chosen is not None
    assert chosen.step == 20
    assert message.count("\n") == 1
    assert all(part in message for part in ("last.ckpt (", f"{step_name(30)} (", "step 20"))
    assert read_checkpoint(own / "last.ckpt").step == 20
    names = ["best.ckpt", "last.ckpt", "last.ckpt.damaged", step_name(20), f"{step_name(30)}.damaged"]
    assert sorted(os.listdir(own)) == names
    assert os.listdir(own.parent) == ["checkpoints"]
    assert choose("auto", own).step == 20
    assert capsys.readouterr().err == ""


def test_a_kill_between_two_files_of_a_step_leaves_both_names_to_be_given(own):
    save(own, "best.ckpt", 5)
    save(own, "last.ckpt", 15)
    save(own, step_name(20), 20, best_step=20)
    choose("auto", own)
    assert [read_checkpoint(own / name).step for name in ("best.ckpt", "last.ckpt")] == [20, 20]
    save(own, step_name(30), 30, best_step=20)
    choose("auto", own)
    assert [read_checkpoint(own / name).step for name in ("best.ckpt", "last.ckpt")] == [20, 30]


def test_a_run_that_begins_elsewhere_keeps_its_own_progress(own, tmp_path, capsys):
    start = save(tmp_path, "start.ckpt", 10)
    assert choose(str(start), own).path == start
    save(own, "last.ckpt", 12)  # the same command again, as SLURM gives it
    assert choose(str(start), own).step == 12
    assert capsys.readouterr().err.count("\n") == 1
    other = tmp_path / "other" / "checkpoints"
    save(other, "best.ckpt", 20)
    assert choose(str(other.parent), own).path == other / "best.ckpt"
    assert capsys.readouterr().err == ""


def test_progress_is_not_given_up_without_a_word(own):
    assert choose("never", own) is None
    save(own, "last.ckpt", 12)
    with pytest.raises(InputError, match="12 steps already; overwrite=true"):
        choose("never", own)


@pytest.mark.parametrize("harm", [cut, os.unlink])
def test_a_wish_for_a_checkpoint_that_is_not_whole_is_refused(own, tmp_path, harm):
    start = save(tmp_path, "start.ckpt", 10)
    harm(start)
    with pytest.raises(InputError, match="resume=") as caught:
        choose(str(start), own)
    assert "\n" not in str(caught.value)
    shutil.copytree(own, tmp_path / "empty" / "checkpoints")
    with pytest.raises(InputError, match="no checkpoint there"):
        choose(str(tmp_path / "empty"), own)


def test_numbered_checkpoints_are_kept_beside_the_last_and_the_best(kit, undisturbed):
    rows = kit.metrics(undisturbed)
    scores = {int(row["step"]): float(row["valid/loss"]) for row in rows if row["valid/loss"]}
    assert sorted(scores) == [3, 6]
    kept = {path.name: kit.load(undisturbed, path.name) for path in (undisturbed / "checkpoints").iterdir()}
    best = min(scores, key=scores.get)
    assert {name: kept[name]["global_step"] for name in kept} == {
        "best.ckpt": best, "last.ckpt": kit.NUM_STEPS, step_name(4): 4
    }  # fmt: skip
    state = kept["last.ckpt"]["callbacks"]["KeepCheckpoints"]
    assert state["best_step"] == best
    assert state["best_score"] == pytest.approx(scores[best], rel=1e-6)


def test_a_full_disk_ends_the_run_with_one_line_and_harms_nothing(kit, forks, tracks, folder, undisturbed):
    size = (undisturbed / "checkpoints" / "last.ckpt").stat().st_size
    argv = kit.keys(tracks, folder)
    assert forks(argv, at=["step", "", 3], signal=15) == 1  # stopped with a checkpoint of step 4
    assert forks(argv, file_size=size // 2) == 1
    assert forks.output.count("\n") == 1
    assert "could not be written" in forks.output
    assert kit.load(folder)["global_step"] == 4
    assert forks(argv) == 0
    kit.same(folder, undisturbed)
