"""Curves of the online probe: what is there is drawn, under names a reader knows, and nothing where nobody watched."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from musictf.reporting.online_figure import online_curves
from musictf.reporting.run_figures import pretraining_pictures

HEAD = "step,online/beat_ap_layer2,online/chord_accuracy_layer10,online/chord_accuracy_layer2,online/tag_map,train/loss"


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(f"{HEAD}\n0,.1,.4,.3,.5,\n5,,,,,2.0\n10,.2,.6,.35,.45,1.5\n")
    return path


def texts(path):
    return [text.text for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_every_task_has_a_panel_and_every_layer_a_line(metrics, tmp_path):
    png, svg = sorted(online_curves(metrics, tmp_path / "online"))
    assert png.stat().st_size > 1000
    words = texts(svg)
    assert {"chords (accuracy of tokens)", "beats (average precision)", "tracks (class token)"} <= set(words)
    assert words.index("layer 2") < words.index("layer 10")  # by number, not by name
    assert "tags (mAP)" in words
    assert "same track nearest" not in words


def test_a_run_that_nobody_watched_has_no_such_picture(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,2.0\n")
    assert online_curves(tmp_path / "metrics.csv", tmp_path / "online") == []
    assert [path.name for path in pretraining_pictures(tmp_path)] == ["training.png", "training.svg"]


def test_a_watched_run_has_both(metrics):
    names = {path.name for path in pretraining_pictures(metrics.parent)}
    assert names == {"training.png", "training.svg", "online.png", "online.svg"}
