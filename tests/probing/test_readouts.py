"""Readouts: which embedding an example reads, and that splits keep tracks in order."""

import numpy as np
import pytest
import torch

from musictf.probing.features import TrackFeatures
from musictf.probing.readouts import READOUTS, split, track_rows
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


@pytest.mark.parametrize(("readout", "first"), [("class", 100), ("average", 200), ("sequence", 300)])
def test_a_track_task_reads_one_row_an_excerpt(readout, first):
    track = track_rows(features(), readout, "track")
    assert track.rows[track.index][:, 0, 0].tolist() == [first, first + 1, first + 2]
    np.testing.assert_array_equal(track.times, CENTRES)


def test_a_frame_task_reads_its_own_token():
    track = track_rows(features(), "sequence", "frame")
    assert len(track.index) == 200
    torch.testing.assert_close(track.rows[track.index][:, 0, 0], 0.001 * torch.arange(200))


@pytest.mark.parametrize(("readout", "first"), [("class", 100), ("average", 200)])
def test_without_tokens_of_its_own_a_frame_reads_the_excerpt_with_the_nearest_centre(readout, first):
    track = track_rows(features(), readout, "frame")
    nearest = abs(track.times[:, None] - np.array(CENTRES)).argmin(axis=1)
    assert (track.rows[track.index][:, 0, 0].numpy() - first == nearest).all()
    assert set(nearest) == {0, 1, 2}


def test_a_track_of_one_excerpt_reads_that_one_everywhere():
    one = features()
    one.class_token, one.excerpt_times = one.class_token[:1], one.excerpt_times[:1]
    track = track_rows(one, "class", "frame")
    assert (track.index == 0).all()


@pytest.mark.parametrize("readout", READOUTS)
def test_a_split_joins_tracks_in_order_with_their_own_targets(readout):
    found = split(Frames(), [features(), features(1000.0, 150)], [0.0, 500.0], readout)
    assert len(found.index) == len(found.targets) == 350
    values = found.rows[found.index][:, 0, 0]
    assert (values[:200] < 900).all()
    assert (values[200:] >= 900).all()
    assert float(found.targets[200]) == 500.0
    for track, first in zip(found.tracks, (0, 200), strict=True):
        assert torch.equal(track.rows[track.index][:, 0, 0], values[first : first + len(track.index)])
        assert track.rows.untyped_storage().data_ptr() == found.rows.untyped_storage().data_ptr()


def test_each_excerpt_of_a_track_has_the_target_of_the_track():
    found = split(Clips(), [features(), features()], [1.0, 2.0], "class")
    assert found.targets.tolist() == [[1.0, -1.0]] * 3 + [[2.0, -2.0]] * 3
