"""The listening page in a browser, opened as a file: it plays, seeks, and draws one moment at one place."""

import base64
import io
import os
import shutil
from dataclasses import replace

import librosa
import matplotlib.image
import numpy as np
import pytest

from musictf.annotations import Beats, Chords
from musictf.reporting.listening import ListeningTrack, listening_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.slow

RATE, HOP, SECONDS = 16_000, 512, 20.0
FRAME = HOP / RATE
CLICK = 123_457  # sample of the click, seconds 7.716
TITLE = "</script><b>bold</b> & 'quotes'"
FIFTHS = ["C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F"]


def a_track(seconds=SECONDS):
    """Faint noise with one loud click, its chords, beats and onset, and two matrices."""
    generator = np.random.default_rng(0)
    waveform = (1e-4 * generator.standard_normal(round(seconds * RATE))).astype(np.float32)
    waveform[CLICK : CLICK + 8] = 0.9
    power = librosa.feature.melspectrogram(y=waveform, sr=RATE, n_fft=1024, hop_length=HOP, n_mels=64)
    times = np.arange(power.shape[1]) * HOP / RATE
    edges = np.linspace(0, 19.2, 13)
    chords = Chords(np.column_stack([edges[:-1], edges[1:]]), [f"{root}:maj" for root in FIFTHS])
    positions = np.arange(0, seconds, 0.5)
    block = np.sign(np.sin(positions))
    return ListeningTrack(
        title=TITLE,
        subtitle="a corpus",
        waveform=waveform,
        sample_rate=RATE,
        log_mel=librosa.power_to_db(power, ref=np.max),
        mel_times=times,
        mel_hz=librosa.mel_frequencies(n_mels=64),
        chords={"annotated": chords, "estimated by a system with quite a long name": chords},
        beats={"annotated": Beats(np.arange(0.5, seconds, 0.5), np.arange(len(np.arange(0.5, seconds, 0.5))) % 4 + 1)},
        onsets={"onsets": np.array([CLICK / RATE])},
        curves={"novelty": (times, np.cos(times))},
        matrices={"blocks": (positions, np.outer(block, block)), "diagonal": (positions, np.eye(len(positions)))},
    )


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("MUSICTF_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on PATH; set MUSICTF_CHROMIUM to one")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        with playwright.chromium.launch(executable_path=path, args=arguments) as opened:
            yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return listening_page(a_track(), tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def open_page(browser):
    """Opener of a page, which must ask for nothing and complain of nothing while the test runs."""
    contexts, troubles = [], []

    def opener(file, width=1280, height=900, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: asked(request.url))
        page.goto(file.as_uri())
        until(page, "document.getElementById('audio').readyState >= 3")
        settle(page)
        return page

    def asked(url):
        if not url.startswith(("file:", "data:", "blob:")):
            troubles.append(f"asked for {url}")

    yield opener
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture
def page(open_page, file):
    return open_page(file)


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(page, expression, seconds=20):
    """Waits for a condition. Not `wait_for_function`: the page's own policy forbids the eval that it polls with."""
    for _ in range(round(seconds / 0.02)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never came true: {expression}")


def now(page):
    return page.evaluate("document.getElementById('audio').currentTime")


def canvas(page, kind, index=0):
    return page.locator(f".lane.{kind} canvas").nth(index)


def pixels(page, locator):
    """What a canvas holds, (rows, columns, 4) of 0 to 1, and its columns per CSS pixel."""
    data = locator.evaluate("node => node.toDataURL('image/png')")
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    return image, image.shape[1] / locator.evaluate("node => node.clientWidth")


def middle(columns, density):
    """Middle of the columns that are marked, in CSS pixels."""
    return (np.flatnonzero(columns).mean() + 0.5) / density


def test_the_title_is_shown_letter_for_letter(page):
    assert page.inner_text("h1") == TITLE
    assert page.title() == TITLE
    assert page.locator("h1 b").count() == 0


def test_it_plays_and_pauses_by_button_and_by_space(page):
    page.click("#play")
    until(page, "document.getElementById('audio').currentTime > 0.3")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.keyboard.press(" ")
    assert page.evaluate("document.getElementById('audio').paused")
    until(page, "document.getElementById('play').getAttribute('aria-label') === 'Play'")
    assert page.inner_text("#clock").startswith("0:00.")


def test_the_cursor_moves_with_the_sound(page):
    page.evaluate("musictf.seek(5)")
    page.click("#play")
    until(page, "document.getElementById('audio').currentTime > 5.5")
    gap = page.evaluate(
        """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
            const line = document.getElementById('cursor').getBoundingClientRect();
            const lane = document.querySelector('.lane canvas').getBoundingClientRect();
            const drawn = musictf.timeAt(0, line.left + line.width / 2 - lane.left);
            done(document.getElementById('audio').currentTime - drawn); })))"""
    )
    assert abs(gap) <= 0.05


@pytest.mark.parametrize("zoomed", [False, True])
def test_a_click_on_any_lane_seeks_to_its_moment(page, zoomed):
    if zoomed:
        page.evaluate("musictf.zoomTo(200, 0); musictf.scrollTo(1234)")
        settle(page)
    left, scale = (1234, 200) if zoomed else (0, None)
    for index in range(page.evaluate("musictf.lanes().length")):
        lane = page.locator(".lane canvas").nth(index)
        width = lane.evaluate("node => node.clientWidth")
        x = width * (0.2 + 0.05 * index)
        lane.click(position={"x": x, "y": 10})
        expected = (left + x) / (scale or width / SECONDS)
        assert now(page) == pytest.approx(expected, abs=FRAME)
        assert page.evaluate(f"musictf.timeAt({index}, {x})") == pytest.approx(expected, abs=1e-3)


def test_dragging_moves_the_cursor_along(page):
    box = canvas(page, "chords").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 5, steps=4)
    page.mouse.up()
    assert now(page) == pytest.approx(300 / box["width"] * SECONDS, abs=FRAME)


def test_keys_move_the_cursor(page):
    page.evaluate("musictf.seek(10)")
    steps = {"ArrowRight": 11, "ArrowLeft": 10, "Shift+ArrowRight": 15, "Shift+ArrowLeft": 10, "End": 20, "Home": 0}
    for key, expected in steps.items():
        page.keyboard.press(key)
        assert now(page) == pytest.approx(expected, abs=1e-3), key


def test_keys_zoom_and_a_menu_keeps_its_own(page):
    scale = "musictf.xAt(1) - musictf.xAt(0)"
    whole = page.evaluate(scale)
    page.keyboard.press("+")
    assert page.evaluate(scale) > 1.3 * whole
    page.keyboard.press("+")
    page.keyboard.press("-")
    assert whole < page.evaluate(scale) < 2 * whole
    page.keyboard.press("0")
    assert page.evaluate(scale) == pytest.approx(whole)
    page.focus("#which")
    page.keyboard.press("ArrowRight")
    assert now(page) == 0


def click_in_the_sound(page):
    """Seconds of the loudest sample of what the browser decodes."""
    return page.evaluate(
        """async rate => {
            const bytes = Uint8Array.from(atob(document.getElementById('flac').textContent), c => c.charCodeAt(0));
            const sound = (await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer)).getChannelData(0);
            let loudest = 0;
            for (let i = 0; i < sound.length; i++) if (Math.abs(sound[i]) > Math.abs(sound[loudest]) + 0.1) loudest = i;
            return loudest / rate;
        }""",
        RATE,
    )


@pytest.mark.parametrize("density", [1, 2.625])
def test_a_click_is_heard_where_it_is_drawn(open_page, file, density):
    page = open_page(file, device_scale_factor=density)
    heard = click_in_the_sound(page)
    assert heard == pytest.approx(CLICK / RATE, abs=2 / RATE)
    for zoom in (0, 300):  # a frame is two pixels wide, then ten
        page.evaluate(f"musictf.zoomTo({zoom}, 0); musictf.scrollTo({max(0, heard * zoom - 400)})")
        settle(page)
        image, per_pixel = pixels(page, canvas(page, "spectrogram"))
        brightness = image[: len(image) // 2, :, :3].sum(axis=(0, 2))
        marks = {"spectrogram": middle(brightness > 0.9 * brightness.max(), per_pixel)}
        image, per_pixel = pixels(page, canvas(page, "onsets"))
        marks["onsets"] = middle(image[..., 3].max(axis=0) > 0.5, per_pixel)
        image, per_pixel = pixels(page, canvas(page, "waveform"))
        marks["waveform"] = middle(image[5 : len(image) // 4, :, 3].max(axis=0) > 0.5, per_pixel)
        drawn = {kind: page.evaluate(f"musictf.timeAt(0, {x})") for kind, x in marks.items()}
        assert drawn == pytest.approx(dict.fromkeys(drawn, heard), abs=FRAME)
        assert drawn["onsets"] == pytest.approx(heard, abs=FRAME / 2)


def test_chords_and_beats_lie_on_the_same_axis(page):
    image, per_pixel = pixels(page, canvas(page, "chords"))
    jumps = np.flatnonzero(np.abs(np.diff(image[4, :, :3] * image[4, :, 3:], axis=0)).sum(axis=1) > 0.02) / per_pixel
    image, per_pixel = pixels(page, canvas(page, "beats"))
    downbeats = (np.flatnonzero(image[len(image) // 4, :, 3] > 0.5) + 0.5) / per_pixel
    for time in 1.6 * np.arange(1, 12):
        x = page.evaluate(f"musictf.xAt({time})")
        assert np.abs(jumps - x).min() < 2.5
    for time in np.arange(0.5, SECONDS, 2.0):
        assert np.abs(downbeats - page.evaluate(f"musictf.xAt({time})")).min() < 1.5
    assert len(downbeats) < 5 * 10  # the other beats end below this row


def test_zoom_keeps_the_moment_under_the_pointer(page):
    box = canvas(page, "curve").bounding_box()
    page.mouse.move(box["x"] + 500, box["y"] + 20)
    before = page.evaluate("musictf.timeAt(0, 500)")
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    until(page, "musictf.xAt(1) - musictf.xAt(0) > 200")
    assert page.evaluate("musictf.timeAt(0, 500)") == pytest.approx(
        before, abs=FRAME / 2
    )  # a scroller stands on whole pixels
    page.click("#fit")
    assert page.evaluate("[musictf.xAt(0), musictf.timeAt(0, 1e6)]") == pytest.approx([0, SECONDS])
    assert page.evaluate("scroller.scrollWidth - scroller.clientWidth") == 0


def test_the_view_turns_the_page_while_it_plays_unless_the_reader_scrolled_away(page):
    width = canvas(page, "ruler").evaluate("node => node.clientWidth")
    page.evaluate(f"musictf.zoomTo(600, 0); musictf.seek({width} / 600 * 0.9)")
    page.click("#play")
    until(page, "scroller.scrollLeft > 100")
    assert 0 <= page.evaluate("musictf.xAt(document.getElementById('audio').currentTime)") <= width
    page.evaluate("scroller.scrollLeft = 9000")
    page.wait_for_timeout(400)
    assert page.evaluate("scroller.scrollLeft") == pytest.approx(9000, abs=1)
    page.keyboard.press("ArrowRight")
    until(page, "scroller.scrollLeft < 6000")


def test_the_matrix_seeks_across_and_up(page):
    matrix = page.locator("#matrix")
    matrix.scroll_into_view_if_needed()
    where = {"x": page.evaluate("musictf.matrix.xAt(12.25)"), "y": page.evaluate("musictf.matrix.yAt(4.5)")}
    pixel = 1 / page.evaluate("musictf.matrix.xAt(1) - musictf.matrix.xAt(0)")  # a mouse points at whole ones
    matrix.click(position=where)
    assert now(page) == pytest.approx(12.25, abs=pixel)
    matrix.click(position=where, modifiers=["Shift"])
    assert now(page) == pytest.approx(4.5, abs=pixel)
    page.evaluate("musictf.seek(0)")
    matrix.click(position=where, button="right")
    assert now(page) == pytest.approx(4.5, abs=pixel)


def test_the_matrix_is_drawn_at_its_times_with_lines_at_the_cursor(page):
    page.select_option("#which", label="diagonal")
    page.evaluate("musictf.seek(15)")
    page.wait_for_timeout(200)
    image, per_pixel = pixels(page, page.locator("#matrix"))
    yellow = (image[..., 0] > 0.9) & (image[..., 2] < 0.5)
    for time in (3.0, 10.5, 18.5):  # away from the lines
        y = round(page.evaluate(f"musictf.matrix.yAt({time})") * per_pixel)
        assert middle(yellow[y], per_pixel) == pytest.approx(page.evaluate(f"musictf.matrix.xAt({time})"), abs=1.5)
    white = (image[..., :3] > 0.75).all(axis=2)
    x, y = page.evaluate("[musictf.matrix.xAt(15), musictf.matrix.yAt(15)]")
    assert middle(white.mean(axis=0) > 0.5, per_pixel) == pytest.approx(x, abs=1.0)
    assert middle(white.mean(axis=1) > 0.5, per_pixel) == pytest.approx(y, abs=1.0)


def lab_without_red_green(rgb):
    """Lab of colours (n, 3) as seen without red-green: deuteranopia after Viénot, Brettel and Mollon (1999)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = linear @ to_lms.T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]) + 1e-9)
    return np.column_stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_roots_two_fifths_apart_differ_without_red_green(open_page, file, scheme):
    page = open_page(file, color_scheme=scheme)
    image, per_pixel = pixels(page, canvas(page, "chords"))
    columns = [round(page.evaluate(f"musictf.xAt({1.6 * i + 0.3})") * per_pixel) for i in range(12)]
    lab = lab_without_red_green(image[6, columns, :3].astype(np.float64))
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    steps = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    far = np.minimum(steps, 12 - steps) >= 2
    assert apart[far].min() > 8  # ten times what an eye can just tell


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_sideways_scroll_and_with_room_for_a_finger(open_page, file, scheme):
    options = {"has_touch": True, "is_mobile": True, "device_scale_factor": 3, "color_scheme": scheme}
    page = open_page(file, width=360, height=740, **options)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in page.locator("button:visible, select:visible").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 40
        assert box["x"] + box["width"] <= 360
    expected = page.evaluate("musictf.timeAt(0, 200)")
    canvas(page, "chords").tap(position={"x": 200, "y": 10})
    assert now(page) == pytest.approx(expected, abs=FRAME)


def test_two_fingers_zoom_and_do_not_seek(open_page, file):
    page = open_page(file, width=360, height=740, has_touch=True, is_mobile=True)
    page.evaluate("musictf.zoomTo(0, 0)")
    box = canvas(page, "waveform").bounding_box()
    touches = page.context.new_cdp_session(page)
    before = page.evaluate("musictf.timeAt(0, 160)")
    for kind, apart in [("touchStart", 40), ("touchMove", 60), ("touchMove", 120), ("touchEnd", None)]:
        places = [] if apart is None else [{"x": box["x"] + 160 + side * apart, "y": box["y"] + 40} for side in (-1, 1)]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    settle(page)
    assert page.evaluate("musictf.xAt(1) - musictf.xAt(0)") == pytest.approx(3 * box["width"] / SECONDS, rel=0.02)
    assert page.evaluate("musictf.timeAt(0, 160)") == pytest.approx(before, abs=2 * FRAME)
    assert now(page) == 0
    assert page.evaluate("visualViewport.scale") == 1


def test_ten_minutes_work(open_page, tmp_path):
    seconds = 600.0
    generator, frames = np.random.default_rng(0), 18_751
    direction = generator.standard_normal((4000, 8))
    similarity = np.clip(np.corrcoef(direction), -1, 1)
    track = replace(
        a_track(),
        waveform=(0.3 * generator.standard_normal(round(seconds * RATE))).clip(-1, 1).astype(np.float32),
        log_mel=generator.uniform(-70, 0, (64, frames)),
        mel_times=np.arange(frames) * FRAME,
        curves={"spike": (np.arange(frames) * FRAME, (np.arange(frames) == 12_345).astype(float))},
        matrices={"m": (0.15 * np.arange(4000), similarity)},
    )
    page = open_page(listening_page(track, tmp_path / "long.html"), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate("musictf.zoomTo(0, 0)")
    settle(page)
    image, per_pixel = pixels(page, canvas(page, "curve"))
    spike = middle(image[len(image) // 4, :, 3] > 0.3, per_pixel)  # one of sixty points on a pixel is not lost
    assert spike == pytest.approx(page.evaluate(f"musictf.xAt({12_345 * FRAME})"), abs=1.5)
    page.evaluate("musictf.zoomTo(600, 0); musictf.seek(599)")
    settle(page)
    image, _ = pixels(page, canvas(page, "spectrogram"))
    assert image[len(image) // 2, :-8, :3].max(axis=1).min() > 0  # no column is left blank
    assert page.inner_text("#clock") == "9:59.00"
