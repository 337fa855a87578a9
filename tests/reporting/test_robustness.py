"""Robustness curves: every system and condition is there, clean is marked, numbers are those of the rows."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pytest

from musictf.audio.perturb import PERTURBATIONS
from musictf.errors import InputError
from musictf.reporting import robustness
from musictf.reporting.figures import BLUE, ORANGE
from musictf.reporting.robustness import clean_position, read_curves, robustness_figure, robustness_table

CLEAN = {"name": "clean", "amount": None, "unit": ""}
VALUES = {"pretrained": 0.8, "random": 0.6, "mel": 0.65, "majority": 0.3}


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def conditions(*names):
    changes = [PERTURBATIONS[name] for name in names]
    return [CLEAN] + [{"name": c.name, "amount": a, "unit": c.unit} for c in changes for a in c.amounts]


@pytest.fixture
def rows(row):
    """Four systems in two readouts under gain and noise; each step away from clean costs a hundredth."""
    made = []
    for step, what in enumerate(conditions("gain", "noise")):
        for kind, value in VALUES.items():
            value -= step / 100
            if kind == "majority":
                constant = {"readout": "constant", "selection": None, "decoder": {"name": "constant"}}
                made.append(row(kind, value, perturbation=what, **constant))
                continue
            made.append(row(kind, value, valid=0.5, perturbation=what))
            # better on test, worse on validation: must not be shown
            made += [
                row(kind, value + 0.1, valid=0.4, perturbation=what, readout=name) for name in ("class", "average")
            ]
            made.append(row(kind, 0.99, valid=0.9, perturbation=what, layer=1, selected=False))
            made.append(row(kind, 0.11, valid=0.5, perturbation=what, decoder={"name": "after"}))
    return made


def test_a_figure_has_a_panel_for_each_perturbation_and_a_name_for_each_system(rows, tmp_path):
    png, svg = robustness_figure(rows, "beat", tmp_path / "figures" / "beat")
    assert png.read_bytes().startswith(b"\x89PNG")
    texts = words(svg)
    assert {"gain", "dB", "noise", "dB signal-to-noise", "f_measure (0–1)"} <= set(texts)
    assert {"pretrained vit1d_mini", "random vit1d_mini", "mel", "majority"} <= set(texts)
    assert texts.count("clean") == 2
    assert "beat on pop909: robustness" in texts
    assert len(svg.read_text()) > 5000


def test_figures_repeat_to_the_byte(rows, tmp_path):
    first = robustness_figure(rows, "beat", tmp_path / "a")
    second = robustness_figure(rows, "beat", tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_curves_show_the_readout_that_validation_prefers(rows):
    curves = read_curves(rows, "beat")
    assert (curves.headline, curves.decoder) == ("f_measure", "peaks")
    assert [system[0] for system in curves.names] == list(VALUES)
    for (kind, *_), scores in curves.scores.items():
        assert scores["clean", 0.0].mean == pytest.approx(VALUES[kind])
        assert scores["gain", -12.0].mean == pytest.approx(VALUES[kind] - 0.01)
        assert scores["noise", 0.0].mean == pytest.approx(VALUES[kind] - 0.07)
        assert scores["noise", 0.0].high == pytest.approx(VALUES[kind] - 0.05)
        assert len(scores) == 8


def test_another_decoder_can_be_drawn(rows):
    curves = read_curves(rows, "beat", decoder="after")
    shown = {system[0]: scores["gain", 6.0].mean for system, scores in curves.scores.items()}
    assert shown["pretrained"] == pytest.approx(0.11)
    assert shown["majority"] == pytest.approx(0.27)  # it decodes nothing and stands beside every decoder


def test_a_decoder_without_rows_is_refused(rows):
    with pytest.raises(InputError, match="no row of decoder dbn: any of after, peaks"):
        read_curves(rows, "beat", decoder="dbn")


def test_seeds_are_averaged(row):
    made = [
        row(value=value, valid=0.5, seed=seed, perturbation=what)
        for what in conditions("gain")
        for seed, value in enumerate((0.5, 0.7))
    ]
    (scores,) = read_curves(made, "beat").scores.values()
    assert scores["gain", 6.0].mean == pytest.approx(0.6)


def test_results_rows_without_a_perturbation_are_clean(rows):
    plain = [{key: v for key, v in r.items() if key != "perturbation" or v["name"] != "clean"} for r in rows]
    assert read_curves(plain, "beat") == read_curves(rows, "beat")


def test_perturbed_splits_may_have_digests_of_their_own(row):
    made = [row(perturbation=what, split=f"digest-{n}") for n, what in enumerate(conditions("pitch"))]
    (scores,) = read_curves(made, "beat").scores.values()
    assert len(scores) == 5


@pytest.mark.parametrize(
    ("name", "amounts", "place"),
    [("gain", [-12, 6], 0), ("pitch", [-1, 1], 0), ("stretch", [0.8, 1.25], 1)]
    + [("noise", [0, 10, 20, 30], 40), ("noise", [10], 11), ("mp3", [0.5, 0.9], 0.1)],
)
def test_clean_stands_at_the_neutral_amount_or_beyond_the_mildest(name, amounts, place):
    assert clean_position(name, amounts) == pytest.approx(place)


def drawn(monkeypatch, rows, tmp_path):
    """The figure that would be written."""
    figures = []
    monkeypatch.setattr(robustness, "save", lambda figure, out: figures.append(figure) or [])
    robustness_figure(rows, "beat", tmp_path / "x")
    return figures[0]


def test_panels_show_values_intervals_and_a_hollow_clean_mark(rows, tmp_path, monkeypatch):
    gain, noise = drawn(monkeypatch, rows, tmp_path).axes
    named = {line.get_label(): line for line in gain.lines if not line.get_label().startswith("_")}
    pretrained, random = named["pretrained vit1d_mini"], named["random vit1d_mini"]
    assert matplotlib.colors.to_hex(pretrained.get_color()) == BLUE
    assert matplotlib.colors.to_hex(random.get_color()) == ORANGE
    np.testing.assert_allclose(pretrained.get_ydata(), [0.79, 0.78, 0.8, 0.77])  # -12, -6, clean, 6 dB
    np.testing.assert_allclose(pretrained.get_xdata(), [-12, -6, 0, 6], atol=0.5)
    bars = [part for part in gain.collections if len(part.get_segments()) == 4]
    assert len(bars) == 4
    np.testing.assert_allclose(bars[0].get_segments()[0][:, 1], [0.77, 0.81])
    hollow = [line for line in gain.lines if line.get_markerfacecolor() == "white"]
    assert [round(float(line.get_ydata()[0]), 2) for line in hollow] == [0.8, 0.6, 0.65]
    assert noise.xaxis_inverted()
    assert not gain.xaxis_inverted()
    assert [text.get_text() for text in noise.get_xticklabels()] == ["0", "10", "20", "30", "clean"]


def test_a_score_outside_its_interval_is_drawn(row, tmp_path):
    made = [row(perturbation=what) for what in conditions("gain")]
    for each in made:
        each["scores"]["f_measure"]["ci95"] = [0.71, 0.9]  # mean .7: the bootstrap of a split may do that
    assert robustness_figure(made, "beat", tmp_path / "x")
    for each in made:
        each["scores"]["f_measure"]["ci95"] = [None, None]  # one track has no interval
    assert robustness_figure(made, "beat", tmp_path / "x")


def test_a_system_that_lacks_a_condition_has_a_gap_and_a_dash(rows):
    fewer = [r for r in rows if not (r["backbone"]["kind"] == "mel" and r["perturbation"]["amount"] == -6)]
    table = robustness_table(fewer, "beat").splitlines()
    line = next(line for line in table if line.startswith("| gain | -6 dB |"))
    assert line.split("|")[5].strip() == "–"


def test_a_table_says_what_the_figure_shows(rows):
    table = robustness_table(rows, "beat").splitlines()
    assert table[0] == "### beat on pop909: robustness"
    assert table[2] == "| perturbation | amount | pretrained vit1d_mini | random vit1d_mini | mel | majority |"
    assert table[4].startswith("| clean | – | .800 [.780 .820] | .600")
    assert "| noise | 10 dB signal-to-noise | .740 [.720 .760] |" in "\n".join(table)
    assert len([line for line in table if line.startswith("|")]) == 2 + 8
    assert "decoder peaks" in table[-1]


def test_rows_that_do_not_suffice_are_refused(rows, row):
    clean = [r for r in rows if r["perturbation"]["name"] == "clean"]
    perturbed = [r for r in rows if r["perturbation"]["name"] != "clean"]
    unselected = [*clean, row(perturbation=conditions("gain")[1], selected=False)]
    refused = ((clean, "perturbed"), (unselected, "perturbed"), (perturbed, "clean"), ([], "clean"))
    for given, message in refused:
        with pytest.raises(InputError, match=f"no {message} row"):
            read_curves(given, "beat")
    with pytest.raises(InputError, match="2 datasets or splits"):
        read_curves([*rows, row(perturbation=CLEAN, dataset="gtzan")], "beat")


def test_two_pretrained_systems_look_different(rows, row):
    second = [row(value=0.7, digest="other", perturbation=what) for what in conditions("gain", "noise")]
    curves = read_curves([*rows, *second], "beat")
    looks = robustness.styles_of(curves)
    assert len(looks) == 5
    assert len(set(looks.values())) == 5


def test_drawing_needs_no_torch():
    code = "import sys, musictf.reporting.robustness; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
