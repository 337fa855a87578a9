import re

import numpy as np
import pytest

from musictf.annotations import Beats, Chords
from musictf.errors import InputError
from musictf.reporting.figures import layer_heatmap, training_curves
from musictf.reporting.report import write_report
from musictf.reporting.track_figure import (
    AnnotatedTrack,
    beats_over_spectrogram,
    chord_colour,
    chords_over_spectrogram,
    track_figure,
)

COLUMNS = ["train/loss", "train/accuracy", "train/alignment", "train/uniformity", "train/effective_rank", "valid/loss"]


def words(svg):
    """All text of a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def written(paths):
    """The SVG, once both files are known to hold a picture."""
    png, svg = paths
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_size > 5000
    return svg


def write_metrics(path, columns, steps=5):
    lines = [",".join(["step", *columns])]
    for step in range(steps):
        lines.append(
            ",".join([str(10 * step), *("" if "valid" in name and step % 2 else f"{2 - step / 9}" for name in columns)])
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def layers(row):
    rows = [row(valid=None, layer=9, selected=False)]  # undefined on validation: not drawn
    for kind, depth in (("pretrained", 4), ("random", 4), ("mel", 0)):
        for layer in range(depth + 1):
            chosen = layer == min(3, depth)
            value = 0.5 + (0.3 if chosen else 0.05 * layer)
            test = {"scores": {"f_measure": 0.123}} if chosen else {"scores": {}}
            rows.append(row(kind, valid=value, layer=layer, selected=chosen, **test))
    return rows


def test_curves_show_every_meter_with_its_unit(tmp_path):
    svg = written(training_curves(write_metrics(tmp_path / "metrics.csv", COLUMNS), tmp_path / "figures" / "curves"))
    texts = words(svg)
    assert {"loss (nats)", "accuracy (fraction)", "effective rank (dimensions)", "step (optimiser updates)"} <= set(
        texts
    )
    assert {"train", "valid"} <= set(texts)
    assert texts.count("collapsed") == 3


def test_curves_do_with_the_columns_there_are(tmp_path):
    svg = written(training_curves(write_metrics(tmp_path / "metrics.csv", ["train/loss"], 300), tmp_path / "curves"))
    assert "loss (nats)" in words(svg)
    assert not any("rank" in text for text in words(svg))


@pytest.mark.parametrize("content", ["step,other\n1,2\n", "step,train/loss\n", "step,train/loss\n1,much\n"])
def test_a_log_without_a_meter_is_refused(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match="metrics.csv"):
        training_curves(tmp_path / "metrics.csv", tmp_path / "curves")


def test_heat_map_marks_what_validation_chose_with_its_test_score(tmp_path, layers):
    svg = written(layer_heatmap(layers, "beat", tmp_path / "layers"))
    marks = re.findall(r'id="(chosen-[^"]*)"', svg.read_text())
    assert marks == ["chosen-pretrained-sequence-3", "chosen-random-sequence-3", "chosen-mel-sequence-0"]
    texts = words(svg)
    assert texts.count(".123") == 3
    assert "9" not in texts
    assert "f_measure on validation (0–1)" in texts
    assert any("test f_measure" in text for text in texts)


def test_heat_map_is_the_same_bytes_each_time(tmp_path, layers):
    first, second = (layer_heatmap(layers, "beat", tmp_path / name)[1].read_text() for name in "ab")
    assert first == second


def test_heat_map_shows_no_test_score_of_other_layers(tmp_path, layers, row):
    peeked = row(value=0.987, valid=0.1, layer=1, selected=False)
    svg = written(layer_heatmap([*layers, peeked], "beat", tmp_path / "layers"))
    assert ".987" not in words(svg)


def test_heat_map_shows_controls_of_one_layer(tmp_path, layers, row):
    controls = [row(kind, 0.6, layer=0) for kind in ("mfcc", "chroma")]
    svg = written(layer_heatmap([*layers, *controls], "beat", tmp_path / "layers"))
    marks = re.findall(r'id="chosen-(\w+)-', svg.read_text())
    assert marks == ["pretrained", "random", "mel", "mfcc", "chroma"]


def test_heat_map_averages_seeds_and_dashes_what_fewer_of_them_chose(tmp_path, row):
    rows = []
    for seed, chosen, value in ((0, 1, 0.2), (1, 1, 0.4), (2, 2, 0.8)):
        for layer in range(3):
            changes = {"layer": layer, "seed": seed, "selected": layer == chosen, "digest": f"r{seed}"}
            rows.append(row("random", value, valid=0.5 + layer / 10, **changes))
    svg = written(layer_heatmap(rows, "beat", tmp_path / "layers"))
    marks = re.findall(r'<g id="chosen-random-sequence-(\d)">.*?</g>', svg.read_text(), flags=re.S)
    frames = re.findall(r'<g id="chosen-random-sequence-\d">(.*?)</g>', svg.read_text(), flags=re.S)
    assert marks == ["1", "2"]  # one panel: random weights of three seeds are one system
    assert ["stroke-dasharray" in frame for frame in frames] == [False, True]
    texts = words(svg)
    assert {".300", ".800"} <= set(texts)
    assert any("means of 3 seeds" in text for text in texts)


def test_heat_map_is_of_the_decoder_that_saw_all_layers(tmp_path, layers, row):
    other = row(value=0.987, valid=0.8, layer=3, decoder={"name": "dynamic_programming"})
    texts = words(written(layer_heatmap([*layers, other], "beat", tmp_path / "layers")))
    assert ".987" not in texts
    texts = words(written(layer_heatmap([*layers, other], "beat", tmp_path / "layers", "dynamic_programming")))
    assert ".987" in texts


def test_heat_map_refuses_to_mix_splits_and_unknown_tasks(tmp_path, layers, row):
    with pytest.raises(InputError, match="2 datasets or splits"):
        layer_heatmap([*layers, row(split="another")], "beat", tmp_path / "layers")
    with pytest.raises(InputError, match="no validated row of task key"):
        layer_heatmap(layers, "key", tmp_path / "layers")


def test_html_report_shows_the_layer_map(tmp_path, layers, run_folder):
    write_report([run_folder(tmp_path / "run", layers)], output=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("data:image/svg+xml;base64,") == 1


@pytest.fixture
def spectrogram():
    times = np.arange(320) * 0.032
    return np.random.default_rng(0).normal(-40, 10, (64, 320)), times


def chords(*labels):
    edges = np.linspace(0, 10, len(labels) + 1)
    return Chords(np.column_stack([edges[:-1], edges[1:]]), list(labels))


def test_chords_are_named_and_differences_underlined(tmp_path, spectrogram):
    reference = chords("C:maj", "A:min", "X", "G:7")
    same = chords_over_spectrogram(*spectrogram, reference, {"probe": reference}, tmp_path / "same")
    other = chords_over_spectrogram(
        *spectrogram, reference, {"probe": chords("C:maj", "F", "N", "G:7")}, tmp_path / "other"
    )
    texts = words(written(other))
    assert {"C", "Am", "F", "G7", "reference", "probe", "time (s)", "mel band (number)", "level (dB)"} <= set(texts)
    # One line: the F against Am. An unknown reference differs from nothing.
    assert [written(paths).read_text().count('id="differs"') for paths in (same, other)] == [0, 1]


def test_only_the_requested_span_is_drawn(tmp_path, spectrogram):
    reference = chords("C", "D", "E", "F")
    texts = words(written(chords_over_spectrogram(*spectrogram, reference, {}, tmp_path / "a.b", start=0.0, end=4.0)))
    assert {"C", "D"} <= set(texts)
    assert not {"E", "F"} & set(texts)
    assert (tmp_path / "a.b.png").is_file()
    with pytest.raises(InputError, match="between 20 and 30 s"):
        chords_over_spectrogram(*spectrogram, reference, {}, tmp_path / "c", start=20.0, end=30.0)


@pytest.mark.parametrize(("offset", "missed"), [(0.06, False), (0.08, True)])
def test_beats_outside_the_tolerance_are_crossed(tmp_path, spectrogram, offset, missed):
    beats = Beats(np.arange(1.0, 10.0), np.arange(9) % 4 + 1)
    activation = np.exp(-(((spectrogram[1] + 0.5) % 1 - 0.5) ** 2) / 0.01)
    estimate = beats.times + offset
    paths = beats_over_spectrogram(*spectrogram, beats, estimate, activation, spectrogram[1], tmp_path / "beats")
    texts = words(written(paths))
    assert {"reference", "estimate", "(probability)"} <= set(texts)
    assert any("none in" in text for text in texts) == missed


def test_one_figure_holds_chords_beats_and_frequencies(tmp_path, spectrogram):
    log_mel, times = spectrogram
    track = AnnotatedTrack(
        log_mel=log_mel,
        times=times,
        mel_hz=np.linspace(0, 8000, 64),
        chords=chords("C", "N"),
        beats=Beats(np.arange(0.5, 9)),
        beat_estimate=np.array([]),
    )
    texts = words(written(track_figure(track, tmp_path / "track")))
    assert {"C", "N", "beats", "frequency (kHz)", "time (s)"} <= set(texts)


def test_a_chord_has_the_colour_of_its_root_whatever_its_spelling():
    assert chord_colour("Db:maj") == chord_colour("C#") == chord_colour("C#:7")
    assert chord_colour("N") == chord_colour("X")
    assert len({chord_colour(root) for root in "C G D A E B F# Db Ab Eb Bb F N".split()}) == 13  # noqa: SIM905
