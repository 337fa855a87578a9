"""Matrices, profiles, shares and tokens as drawn: the numbers of the rows, in their place, with their baselines."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from result_rows import inspection_row

from musictf.annotations import PITCH_CLASSES
from musictf.errors import InputError
from musictf.reporting import similarity_figures, token_map_figures
from musictf.reporting.figures import BLUE, ORANGE
from musictf.reporting.inspection_reader import Inspection
from musictf.reporting.similarity_figures import position_figure, profile_figure, similarity_panel
from musictf.reporting.token_map_figures import class_colours, token_map_figure

SCORE = "rank_correlation_above_shifted"


def profile(value, dimension="harmony", kind="pretrained", layer=0, seed=0, **more):
    return inspection_row("ssm_profile", dimension, layer, {SCORE: value}, kind, seed, **more)


@pytest.fixture
def kept(monkeypatch):
    """Figures in place of files."""
    figures = []
    for module in (similarity_figures, token_map_figures):
        monkeypatch.setattr(module, "save", lambda figure, out: figures.append(figure) or [out])
    return figures


def panels_of(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.axison]


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def matrices(layers=3, bins=8, **more):
    values = np.random.default_rng(0).uniform(-1, 1, (bins, bins))
    found = {f"ssm/{layer}": values + layer for layer in range(layers)}
    return {"bin_times": np.arange(bins) / 4 + 0.125, "dimension/bar": values, **found, **more}


def test_matrices_share_an_axis_in_seconds_and_keep_their_order(kept, tmp_path):
    similarity_panel(matrices(), tmp_path, "song")
    panels = panels_of(kept[0])
    assert [axes.get_title("left") for axes in panels] == ["layer 0", "layer 1", "layer 2", "bar"]
    assert all(axes.images[0].get_extent() == pytest.approx([0, 2, 0, 2]) for axes in panels)
    assert all(axes.images[0].origin == "lower" for axes in panels)


def test_each_matrix_is_scaled_by_its_percentiles_and_the_bar_is_labelled_so(kept, tmp_path):
    similarity_panel(matrices(), tmp_path)
    shown = [np.asarray(axes.images[0].get_array()) for axes in panels_of(kept[0])]
    assert shown[0] == pytest.approx(shown[2])  # an added constant changes no picture
    (bar,) = [axes for axes in kept[0].axes if axes.get_label() == "<colorbar>"]
    assert "percentile" in bar.get_ylabel()


def test_the_diagonal_spends_no_colour(kept, tmp_path):
    similarity_panel(matrices(**{"dimension/bar": matrices()["ssm/0"] + 100 * np.eye(8)}), tmp_path)
    panels = panels_of(kept[0])
    plain, bright = (np.asarray(panels[place].images[0].get_array()) for place in (0, -1))
    elsewhere = ~np.eye(8, dtype=bool)
    assert bright[elsewhere] == pytest.approx(plain[elsewhere])


def test_what_is_unknown_is_neither_drawn_nor_counted(kept, tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (8, 8))
    values[0], values[:, 0] = np.nan, np.nan
    similarity_panel(matrices(**{"dimension/bar": values}), tmp_path)
    shown = panels_of(kept[0])[-1].images[0].get_array()
    assert np.ma.getmaskarray(shown)[0].all()
    assert not np.ma.getmaskarray(shown)[1:, 1:].any()


def test_many_layers_are_thinned_from_first_to_last(kept, tmp_path):
    similarity_panel(matrices(layers=13), tmp_path)
    names = [axes.get_title("left") for axes in panels_of(kept[0])][:7]
    assert names == [f"layer {layer}" for layer in (0, 2, 4, 6, 8, 10, 12)]
    assert "7 of 13 layers" in kept[0].get_suptitle()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ssm/0": np.eye(3)}, "holds no bin_times"),
        ({"bin_times": np.arange(3.0)}, "holds no ssm/LAYER"),
        ({"bin_times": np.arange(4.0), "ssm/0": np.eye(3)}, r"shape \(3, 3\) for 4 bins"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        similarity_panel(arrays, tmp_path / "panel")


def test_a_profile_is_a_line_with_its_band_the_baselines_beside_it(kept, tmp_path):
    rows = [profile(0.3, layer=0, selected=False), profile(0.5, layer=1)]
    rows += [profile(v, kind="random", layer=k, seed=s) for k in (0, 1) for s, v in ((0, 0.1), (1, 0.2))]
    profile_figure(Inspection([*rows, profile(0.45, kind="mel")]), tmp_path)
    (axes,) = panels_of(kept[0])
    own, random = line(axes, "backbone"), line(axes, "random")
    assert own.get_ydata() == pytest.approx([0.3, 0.5])
    assert to_hex(own.get_color()) == BLUE
    assert random.get_ydata() == pytest.approx([0.15, 0.15])
    assert to_hex(random.get_color()) == ORANGE
    assert own.get_linestyle() == "-"
    assert random.get_linestyle() != "-"
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.28)
    assert band.max() == pytest.approx(0.52)
    (mark,) = [container for container in axes.containers if container.get_label() == "mel"]
    assert mark[0].get_ydata() == pytest.approx([0.45])
    assert mark[0].get_xdata()[0] > 1
    assert line(axes, "chosen on validation").get_xdata() == [1]
    assert list(axes.get_xticks()) == [0, 1]  # a mark at the side is no layer


def test_dimensions_have_a_panel_each_and_a_feature_none_against_itself(kept, tmp_path):
    rows = [profile(0.3, name) for name in ("harmony", "timbre", "bar")]
    rows += [profile(0.9, name, kind="chroma") for name in ("harmony", "timbre")]
    profile_figure(Inspection(rows), tmp_path)
    panels = {axes.get_title("left"): axes for axes in panels_of(kept[0])}
    assert list(panels) == ["harmony", "timbre", "bar"]
    assert [len(axes.containers) for axes in panels.values()] == [0, 1, 0]


def test_a_score_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(InputError, match="cka_above_shifted"):
        profile_figure(Inspection([profile(0.3)]), tmp_path / "profile", score="cka_above_shifted")


def shares(values, name="music", layer=0, kind="pretrained"):
    names = ("position_share", "excerpt_share", "content_share")
    return inspection_row(
        "position", name, layer, dict(zip(names, values, strict=True)), kind, dataset=f"stimulus:{name}"
    )


def test_shares_stand_on_each_other(kept, tmp_path):
    rows = [shares((0.2, 0.3, 0.5)), shares((0.6, 0.1, 0.3), layer=1), shares((0.4, 0.1, 0.5), kind="random")]
    rows.append(shares((0.7, 0.1, 0.2), layer=1, kind="random"))
    position_figure(Inspection(rows), tmp_path)
    (axes,) = panels_of(kept[0])
    bars = {c.get_label(): [(bar.get_y(), bar.get_height()) for bar in c] for c in axes.containers}
    assert np.array(bars["position"]) == pytest.approx(np.array([(0, 0.2), (0, 0.6)]))
    assert np.array(bars["both together"]) == pytest.approx(np.array([(0.5, 0.5), (0.7, 0.3)]))
    (random,) = [lines for lines in axes.collections if lines.get_label() == "position, random weights"]
    assert [segment[0, 1] for segment in random.get_segments()] == pytest.approx([0.4, 0.7])


def test_layers_without_variance_are_hatched_not_empty(kept, tmp_path):
    rows = [shares((None, None, None), "silence"), shares((1.0, 0.0, 0.0), "silence", layer=1)]
    position_figure(Inspection(rows), tmp_path)
    (axes,) = panels_of(kept[0])
    (hatched,) = [container for container in axes.containers if container.get_label() == "no variance"]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in hatched] == [0]


def test_position_without_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        position_figure(Inspection([profile(0.3)]), tmp_path / "position")


def tokens(view="chord_root", number=60, layers=5, names=PITCH_CLASSES, width=2):
    generator = np.random.default_rng(0)
    found = {f"{view}/names": np.array(names)[np.arange(number) % len(names)]}
    for layer in range(layers):
        found[f"{view}/pca/{layer}"] = generator.standard_normal((number, 2))
        found[f"{view}/lda/{layer}"] = generator.standard_normal((number, width))
    return found


def maps(view="chord_root", layers=5):
    scores = {"lda_accuracy": 0.4} | ({} if view == "beat_phase" else {"fifths": 0.5, "fifths_chance_high": 0.22})
    details = {"details": {"classes": 12, "tokens": 60, "chance": 0.25}}
    return [
        inspection_row("token_map", view, k, {n: v + k / 100 for n, v in scores.items()}, **details)
        for k in range(layers)
    ]


def test_titles_tell_what_was_measured_of_first_middle_and_last_layer(kept, tmp_path):
    token_map_figure(Inspection(maps()), tokens(), "chord_root", tmp_path)
    titles = [axes.get_title("left") for axes in panels_of(kept[0])]
    assert titles[:3] == [
        f"layer {k}: fifths {v} {c}\n95 % of shuffled names below {high}"
        for k, v, c, high in (
            (0, ".500", "[.480 .520]", ".220"),
            (2, ".520", "[.500 .540]", ".240"),
            (4, ".540", "[.520 .560]", ".260"),
        )
    ]
    assert titles[3] == "layer 0: LDA accuracy .400 [.380 .420]\nguessing .250"


def test_points_are_those_of_the_file_in_the_colours_of_their_names(kept, tmp_path):
    arrays = tokens()
    token_map_figure(Inspection(maps()), arrays, "chord_root", tmp_path)
    below = panels_of(kept[0])[5]
    points = below.collections[0]
    assert sorted(map(tuple, points.get_offsets().tolist())) == sorted(map(tuple, arrays["chord_root/lda/4"].tolist()))
    colours = class_colours(arrays["chord_root/names"])
    for place, colour in zip(points.get_offsets(), points.get_facecolors(), strict=True):
        index = int(np.abs(arrays["chord_root/lda/4"] - place).sum(axis=1).argmin())
        assert colour[:3] == pytest.approx(colours[str(arrays["chord_root/names"][index])][:3], abs=1e-6)
    name = next(text for text in below.texts if text.get_text() == "C♯")
    mean = arrays["chord_root/lda/4"][arrays["chord_root/names"] == "C#"].mean(axis=0)
    assert name.get_position() == pytest.approx(tuple(mean))


def test_colours_go_round_the_circle_of_fifths():
    colours = class_colours(np.array(PITCH_CLASSES))
    assert list(colours) == ["C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#", "F"]
    ring = np.array([colours[name][:3] for name in colours])
    steps = np.linalg.norm(ring - np.roll(ring, -1, axis=0), axis=1)
    assert len(set(map(to_hex, ring))) == 12
    assert steps.max() < np.linalg.norm(ring - np.roll(ring, 6, axis=0), axis=1).max()
    assert list(class_colours(np.array(["before", "after", "beat", "between"]))) == [
        "beat",
        "after",
        "between",
        "before",
    ]


def test_beat_phases_have_a_legend_and_no_circle(kept, tmp_path):
    phases = ("beat", "after", "between", "before")
    token_map_figure(Inspection(maps("beat_phase")), tokens("beat_phase", names=phases), "beat_phase", tmp_path)
    assert panels_of(kept[0])[0].get_title("left") == "layer 0"
    assert [text.get_text() for text in kept[0].legends[0].get_texts()] == list(phases)


def test_two_classes_have_one_discriminant(tmp_path):
    paths = token_map_figure(Inspection(maps()), tokens(width=1, names=("C", "G")), "chord_root", tmp_path / "map")
    assert [path.is_file() for path in paths] == [True, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("chord_root/lda/2"), "holds no chord_root/lda/2"),
        (lambda arrays: arrays.update({"chord_root/pca/0": np.zeros((3, 2))}), r"shape \(3, 2\) for 60 names"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tmp_path, change, message):
    arrays = tokens()
    change(arrays)
    with pytest.raises(InputError, match=message):
        token_map_figure(Inspection(maps()), arrays, "chord_root", tmp_path / "map")
