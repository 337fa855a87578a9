"""Each task says which of its scores tables show, the headline first."""

import pytest

from musictf.tasks.base import Task
from musictf.tasks.beat import BeatTask
from musictf.tasks.chord import ChordTask
from musictf.tasks.classification import ClassificationTask
from musictf.tasks.downbeat import DownbeatTask
from musictf.tasks.key import KeyTask
from musictf.tasks.onset import OnsetTask
from musictf.tasks.tagging import TaggingTask
from musictf.tasks.tempo import TempoTask

TASKS: list[type[Task]] = [BeatTask, ChordTask, ClassificationTask, DownbeatTask, KeyTask, OnsetTask, TaggingTask]
TASKS.append(TempoTask)


@pytest.mark.parametrize("task", TASKS)
def test_the_headline_comes_first_and_at_most_six_are_shown(task):
    assert task.table_scores[0] == task.headline
    assert len(task.table_scores) == len(set(task.table_scores)) <= 6
    assert task.headline not in task.descriptive_scores
