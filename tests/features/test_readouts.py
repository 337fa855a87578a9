"""Readouts: which embedding an example reads, and that splits keep tracks in order."""

import numpy as np
import pytest
import torch

from musictf.features import readouts as readouts_module
from musictf.features.extract import TrackFeatures
from musictf.features.readouts import scored_split, track_rows, trained_split
from musictf.results.names import READOUTS
from musictf.tasks.base import Task

CENTRES = [2.0, 4.016, 6.032]


def features(value=0.0, num_tokens=200):
    """Each kind of embedding is a number of its own, so that a mix-up shows."""
    excerpts = torch.arange(3.0)[:, None, None].expand(3, 2, 4)
    return TrackFeatures(
        class_token=value + 100 + excerpts,
        average=value + 200 + excerpts,
        sequence_mean=value + 300 + excerpts,
        sequence=value + 0.001 * torch.arange(num_tokens)[:, None, None].expand(num_tokens, 2, 4),
        times=torch.from_numpy(np.arange(num_tokens) * 512 / 16000),
        excerpt_times=torch.tensor(CENTRES, dtype=torch.float64),
        seconds=torch.tensor(num_tokens * 512 / 16000 - 0.01, dtype=torch.float64),
    )


class Frames(Task):
    level = "frame"

    def encode(self, annotation, times):
        return torch.from_numpy(times) + annotation


class Clips(Task):
    level = "track"

    def encode(self, annotation, times):
        return torch.tensor([annotation, -annotation])


def read(track, readout):
    """What the examples of a track or split see: one number each."""
    return track.rows[readout][track.index[readout]][:, 0, 0]


@pytest.mark.parametrize(("readout", "first"), [("class", 100), ("average", 200), ("sequence", 300)])
def test_a_track_task_reads_one_row_an_excerpt(readout, first):
    track = track_rows(features(), READOUTS, "track")
    assert read(track, readout).tolist() == [first, first + 1, first + 2]
    np.testing.assert_array_equal(track.times, CENTRES)
    assert track.seconds == pytest.approx(200 * 512 / 16000 - 0.01)


def test_a_frame_task_reads_its_own_token():
    track = track_rows(features(), READOUTS, "frame")
    assert len(track.index["sequence"]) == len(track.times) == 200
    torch.testing.assert_close(read(track, "sequence"), 0.001 * torch.arange(200))
    np.testing.assert_array_equal(track.times, np.arange(200) * 512 / 16000)


@pytest.mark.parametrize(("readout", "first"), [("class", 100), ("average", 200)])
def test_without_tokens_of_its_own_a_frame_reads_the_excerpt_with_the_nearest_centre(readout, first):
    track = track_rows(features(), READOUTS, "frame")
    nearest = abs(track.times[:, None] - np.array(CENTRES)).argmin(axis=1)
    assert (read(track, readout).numpy() - first == nearest).all()
    assert set(nearest) == {0, 1, 2}


def test_a_track_of_one_excerpt_reads_that_one_everywhere():
    one = features()
    one.class_token, one.excerpt_times = one.class_token[:1], one.excerpt_times[:1]
    track = track_rows(one, ["class"], "frame")
    assert (track.index["class"] == 0).all()


@pytest.mark.parametrize("level", ["frame", "track"])
@pytest.mark.parametrize("readouts", [["sequence"], ["average", "class"]])
def test_only_the_readouts_that_are_asked_for_are_there_in_their_order(readouts, level):
    track = track_rows(features(), readouts, level)
    assert list(track.rows) == list(track.index) == readouts


def test_a_split_to_score_on_leaves_features_where_they_are():
    tracks = [features(), features(1000.0, 150)]
    found = scored_split(Frames(), tracks, [0.0, 500.0], READOUTS)
    assert found.references == [0.0, 500.0]
    assert found.rows == {}
    for track, source in zip(found.tracks, tracks, strict=True):
        assert track.rows["sequence"].data_ptr() == source.sequence.data_ptr()
        assert track.rows["class"].data_ptr() == source.class_token.data_ptr()


@pytest.mark.parametrize("memory_gib", [8.0, 0.0], ids=["memory", "disk"])
@pytest.mark.parametrize("readout", READOUTS)
def test_a_split_joins_tracks_in_order_with_their_own_targets(readout, memory_gib):
    found = trained_split(Frames(), [features(), features(1000.0, 150)], [0.0, 500.0], READOUTS, memory_gib)
    assert len(found.index[readout]) == len(found.targets) == 350
    values = read(found, readout)
    assert (values[:200] < 900).all()
    assert (values[200:] >= 900).all()
    assert float(found.targets[200]) == 500.0
    alone = [track_rows(track, READOUTS, "frame") for track in (features(), features(1000.0, 150))]
    torch.testing.assert_close(values, torch.cat([read(track, readout) for track in alone]), rtol=0, atol=0)
    for track, first in zip(found.tracks, (0, 200), strict=True):
        assert torch.equal(read(track, readout), values[first : first + len(track.index[readout])])
        assert track.rows[readout].untyped_storage().data_ptr() == found.rows[readout].untyped_storage().data_ptr()


def test_each_excerpt_of_a_track_has_the_target_of_the_track():
    found = trained_split(Clips(), [features(), features()], [1.0, 2.0], READOUTS)
    assert found.targets.tolist() == [[1.0, -1.0]] * 3 + [[2.0, -2.0]] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_on_disk_is_the_same_split_and_its_file_has_no_name(cache, dtype):
    def half(value, num_tokens):
        track = features(value, num_tokens)
        return TrackFeatures(
            *(getattr(track, name).to(dtype) for name in ("class_token", "average", "sequence_mean", "sequence")),
            track.times,
            track.excerpt_times,
            track.seconds,
        )

    tracks = [half(0.0, 200), half(1000.0, 150), half(0.5, 90)]
    memory, disk = (trained_split(Frames(), tracks, [0.0] * 3, READOUTS, gib) for gib in (8.0, 0.0))
    assert torch.equal(memory.targets, disk.targets)
    for readout in READOUTS:
        assert disk.rows[readout].dtype == dtype
        assert torch.equal(memory.rows[readout], disk.rows[readout])
        assert torch.equal(memory.index[readout], disk.index[readout])
    assert list(cache.iterdir()) == []


def test_the_bound_counts_the_rows_of_all_readouts(monkeypatch):
    asked = []
    original = readouts_module._allocated

    def spy(shape, dtype, on_disk):
        asked.append(on_disk)
        return original(shape, dtype, on_disk)

    monkeypatch.setattr(readouts_module, "_allocated", spy)
    size = sum(rows.nbytes for rows in track_rows(features(), READOUTS, "frame").rows.values())
    for gib, on_disk in ((size / 2**30, False), ((size - 1) / 2**30, True)):
        trained_split(Frames(), [features()], [0.0], READOUTS, gib)
        assert asked[-3:] == [on_disk] * 3
