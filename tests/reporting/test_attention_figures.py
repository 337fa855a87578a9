"""Maps of heads and passages of tracks: what is drawn is what the rows and files say."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from result_rows import inspection_row

from musictf.errors import InputError
from musictf.reporting import attention_curve_figure as passage_figure
from musictf.reporting import attention_figures
from musictf.reporting.attention_curve_figure import attention_curves, best_curves
from musictf.reporting.attention_figures import attention_map, head_grid
from musictf.reporting.figures import BLUE, COLUMN_INCHES
from musictf.reporting.inspection_reader import Inspection

CURVES = ("received", "class_row", "change")


def attention(target="beat", alpha=0.05):
    """Two layers of two heads: areas .4, .5, .6, .7; the last is chosen, and the last two follow."""
    settings = {"task_settings": {"alpha": alpha}}
    rows = []
    for place, curve in enumerate(CURVES):
        chosen = {"selection": {"value": 0.6 + place / 10}, "details": {"p_corrected": 0.01}, "head": 1}
        rows.append(inspection_row(f"attention_{target}", curve, 2, {"auc": 0.7}, **chosen, **settings))
        for unit in range(4):
            details = {"details": {"p_corrected": 0.01 if unit > 1 else 0.5}, "head": unit % 2, "selected": False}
            name = f"{curve}.h{unit % 2}"
            rows.append(
                inspection_row(
                    f"attention_{target}", name, unit // 2 + 1, {"auc": 0.4 + unit / 10}, **details, **settings
                )
            )
    rows += [
        inspection_row(f"attention_{target}", c, 1, {"auc": 0.55}, "random", s, head=0) for c in CURVES for s in (0, 1)
    ]
    return [*rows, inspection_row(f"attention_{target}", "flux", 0, {"auc": 0.81}, "flux", head=0)]


def arrays_of(seconds=20.0, **more):
    times = np.arange(round(seconds * 30)) / 30
    found = {"times": times, "log_mel": np.random.default_rng(0).uniform(-60, 0, (len(times), 8)), "flux": times**0}
    found |= {f"curve/beat/{curve}.l2.h1": place + times for place, curve in enumerate(CURVES)}
    return found | {"mel_hz": np.linspace(100, 7000, 8)} | more


@pytest.fixture
def kept(monkeypatch):
    """Figures in place of files."""
    figures = []
    for module in (attention_figures, passage_figure):
        monkeypatch.setattr(module, "save", lambda figure, out: figures.append(figure) or [out])
    return figures


def panels_of(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def marks(axes, name):
    return [artist for artist in axes.get_children() if (artist.get_gid() or "").startswith(name)]


def test_cells_are_the_areas_of_the_heads(kept, tmp_path):
    attention_map(Inspection(attention()), tmp_path)
    panels = panels_of(kept[0])
    assert len(panels) == 3
    for axes in panels:
        assert np.asarray(axes.images[0].get_array()) == pytest.approx(np.array([[0.4, 0.5], [0.6, 0.7]]))
        assert axes.images[0].get_extent() == pytest.approx([-0.5, 1.5, 0.5, 2.5])  # layers count from 1
        assert axes.images[0].origin == "lower"


def test_half_is_the_middle_of_one_scale(kept, tmp_path):
    attention_map(Inspection([*attention(), *attention("onset")]), tmp_path)
    scales = [axes.images[0].norm for axes in panels_of(kept[0])]
    assert len(scales) == 6
    for scale in scales:
        assert (scale.vmin, scale.vcenter, scale.vmax) == pytest.approx((0.3, 0.5, 0.7))


def test_the_chosen_head_is_framed_and_those_that_follow_are_dotted(kept, tmp_path):
    attention_map(Inspection(attention()), tmp_path)
    axes = panels_of(kept[0])[0]
    (frame,) = marks(axes, "chosen-")
    assert frame.get_x() < 1 < frame.get_x() + frame.get_width()
    assert frame.get_y() < 2 < frame.get_y() + frame.get_height()
    dots = [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in marks(axes, "follows-")]
    assert sorted(dots) == [(0, 2), (1, 2)]


def test_dots_keep_to_the_level_of_the_run(kept, tmp_path):
    attention_map(Inspection(attention(alpha=0.005)), tmp_path)
    assert not [dot for axes in panels_of(kept[0]) for dot in marks(axes, "follows-")]
    assert "p < .005" in kept[0].get_supxlabel()


def test_auc_of_the_controls_is_written(kept, tmp_path):
    attention_map(Inspection(attention()), tmp_path)
    for axes in panels_of(kept[0]):
        assert [text.get_text() for text in axes.texts] == ["chosen .700\nrandom .550\nflux .810"]


def test_a_map_is_written_twice_at_column_width(tmp_path):
    paths = attention_map(Inspection(attention()), tmp_path / "map")
    assert [path.name for path in paths] == ["map.png", "map.svg"]
    assert f'width="{72 * COLUMN_INCHES:g}pt"' in paths[1].read_text()


def test_heads_that_were_not_scored_are_no_map(tmp_path):
    chosen = [row for row in attention() if row["selected"]]
    with pytest.raises(InputError, match="no row of a single head"):
        attention_map(Inspection(chosen), tmp_path)


def test_an_undefined_area_stays_blank(kept, tmp_path):
    rows = attention()
    rows[1]["scores"]["auc"]["mean"] = None
    assert np.isnan(head_grid(Inspection(rows), "attention_beat", "received")[0, 0])
    attention_map(Inspection(rows), tmp_path)


def test_the_best_curve_is_the_one_validation_prefers():
    found = Inspection(attention())
    assert best_curves(found, arrays_of()) == {"beat": "curve/beat/change.l2.h1"}
    without = {name: values for name, values in arrays_of().items() if "change" not in name}
    assert best_curves(found, without) == {"beat": "curve/beat/class_row.l2.h1"}


def test_a_passage_has_spectrogram_events_best_curve_and_flux(kept, tmp_path):
    beats = np.array([1.0, 7.0, 9.0, 19.0])
    attention_curves(Inspection(attention()), arrays_of(**{"event/beat": beats}), tmp_path, "song")
    mel, events, curve, flux = panels_of(kept[0])
    assert mel.get_xlim() == pytest.approx((6, 18))
    (ticks,) = marks(events, "events-beat")
    assert [segment[0, 0] for segment in ticks.get_segments()] == [7.0, 9.0]  # those inside
    line = curve.lines[0]
    assert line.get_ydata() == pytest.approx(2 + line.get_xdata())
    assert to_hex(line.get_color()) == BLUE
    assert curve.get_title("left") == "beat · change, layer 2 head 1 (lines: beats)"
    assert len(curve.collections) == 1
    assert "flux" in flux.get_title("left")


def test_a_passage_of_a_short_track_without_events(kept, tmp_path):
    attention_curves(Inspection(attention()), arrays_of(seconds=4.0), tmp_path)
    mel, curve, _ = panels_of(kept[0])
    assert mel.get_xlim() == pytest.approx((0, 119 / 30))
    assert curve.get_title("left") == "beat · change, layer 2 head 1"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"log_mel": np.zeros((5, 8))}, r"log_mel: shape \(5, 8\)"),
        ({"curve/beat/change.l2.h1": np.zeros(5)}, r"a curve of shape \(5,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        attention_curves(Inspection(attention()), arrays_of(**changed), tmp_path / "passage")


def test_a_missing_array_is_named(tmp_path):
    arrays = {name: values for name, values in arrays_of().items() if name != "flux"}
    with pytest.raises(InputError, match="holds no flux"):
        attention_curves(Inspection(attention()), arrays, tmp_path / "passage")


def test_a_curve_of_unknown_name_is_refused():
    with pytest.raises(InputError, match="expected curve/TARGET"):
        passage_figure.curve_label("curve/beat/received")
