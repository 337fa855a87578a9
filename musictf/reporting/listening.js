// The page: builds the lanes, keeps the cursor on the sound, and turns pointers and keys into seeks and zooms.

const [audio, scroller, strip, cursor] = ["audio", "scroller", "strip", "cursor"].map(element);
const SCRUBBED = ["ruler", "waveform"]; // a finger drags the cursor here even where other lanes pan
const CLOSEST = 600; // pixels a second at most: a frame of 32 ms is 19 wide
const lanes = data.lanes.map(addLane);
let fits = true; // the whole track is shown
let follows = true; // the view goes with the cursor
let pending = false;

function addLane(lane) {
  const row = Object.assign(document.createElement("div"), { className: `lane ${lane.kind}` });
  const name = Object.assign(document.createElement("div"), { className: "name", title: lane.about });
  const words = document.createElement("div"), canvas = document.createElement("canvas");
  const [title, note, now] = ["b", "i", "span"].map(tag => document.createElement(tag));
  [title.textContent, note.textContent, now.className] = [lane.name, lane.note, "now"];
  canvas.className = SCRUBBED.includes(lane.kind) ? "draw scrub" : "draw";
  canvas.style.height = `${KINDS[lane.kind].height}px`;
  canvas.setAttribute("role", lane.kind === "ruler" ? "slider" : "img");
  canvas.setAttribute("aria-label", lane.kind === "ruler" ? "Position" : lane.about);
  words.append(title, lane.note ? " " : "", note);
  name.append(words, now);
  row.append(name, canvas);
  strip.append(row);
  return { ...lane, canvas, now };
}

const slider = lanes[0].canvas;
slider.tabIndex = 0;
slider.setAttribute("aria-valuemin", "0");
slider.setAttribute("aria-valuemax", duration.toFixed(2));

// --- drawing ---

function refresh() {
  if (!pending) requestAnimationFrame(draw);
  pending = true;
}

function draw() {
  pending = false;
  view.left = scroller.scrollLeft;
  for (const lane of lanes) KINDS[lane.kind].paint(...context(lane.canvas), lane);
  drawCursor();
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function drawCursor() {
  const time = audio.currentTime, x = xAt(time), origin = slider.getBoundingClientRect().left - cursor.parentElement.getBoundingClientRect().left;
  cursor.hidden = x < -0.5 || x > view.width + 0.5;
  cursor.style.transform = `translateX(${origin + x}px)`;
  write(element("clock"), minutes(time));
  write(element("seconds"), `${time.toFixed(2)} s`);
  slider.setAttribute("aria-valuenow", time.toFixed(2));
  slider.setAttribute("aria-valuetext", `${time.toFixed(1)} seconds`);
  for (const lane of lanes) if (KINDS[lane.kind].now) write(lane.now, KINDS[lane.kind].now(lane, time));
  drawMatrix(time);
}

// --- view ---

function resize() {
  strip.style.setProperty("--view", `${scroller.clientWidth}px`);
  view.width = slider.clientWidth;
  zoomTo(fits ? 0 : view.scale, view.width / 2);
}

// Zoom so that the time at x stays there; not further out than the whole track, not closer than CLOSEST.
function zoomTo(scale, x) {
  const time = timeAtX(x), whole = view.width / duration;
  view.scale = clamp(scale, whole, Math.max(whole, CLOSEST));
  fits = view.scale <= whole * 1.0001;
  scroller.classList.toggle("fits", fits);
  strip.style.width = `${scroller.clientWidth - view.width + Math.max(view.width, Math.round(duration * view.scale))}px`;
  scrollTo(time * view.scale - x);
}

function zoomBy(factor, x) {
  const at = xAt(audio.currentTime);
  zoomTo(view.scale * factor, x ?? (at >= 0 && at <= view.width ? at : view.width / 2));
}

function scrollTo(left) {
  scroller.scrollLeft = left;
  view.left = scroller.scrollLeft;
  refresh();
}

// Turns the page when the cursor leaves it, unless the reader has scrolled away.
function follow() {
  const x = xAt(audio.currentTime), inside = x >= 0 && x <= view.width;
  follows ||= inside;
  if (follows && !fits && (x < 0 || x > view.width * 0.96)) scrollTo(view.left + x - view.width * 0.06);
}

scroller.addEventListener("scroll", () => {
  if (Math.abs(scroller.scrollLeft - view.left) < 1) return;
  view.left = scroller.scrollLeft;
  const x = xAt(audio.currentTime);
  follows = x >= 0 && x <= view.width;
  refresh();
});
new ResizeObserver(resize).observe(scroller);

// --- sound ---

function seek(time, turnPage = true) {
  audio.currentTime = clamp(time, 0, duration);
  follows = true;
  if (turnPage) follow();
  drawCursor();
}

function toggle() {
  if (!audio.paused) return audio.pause();
  follows = true;
  return audio.play().catch(error => error.name === "AbortError" || complain());
}

function complain() {
  element("trouble").hidden = false;
  element("trouble").textContent = "This browser cannot play the sound inside this page (FLAC); a newer one can.";
}

function tick() {
  follow();
  drawCursor();
  if (!audio.paused) requestAnimationFrame(tick);
}

function showState() {
  element("play").classList.toggle("playing", !audio.paused);
  element("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
}

audio.addEventListener("play", () => { showState(); requestAnimationFrame(tick); });
for (const event of ["pause", "ended"]) audio.addEventListener(event, () => { showState(); drawCursor(); });
audio.addEventListener("seeked", drawCursor);
audio.addEventListener("error", complain);
audio.src = URL.createObjectURL(new Blob([decode(element("flac").textContent)], { type: "audio/flac" }));

element("play").addEventListener("click", toggle);
element("speed").addEventListener("change", () => { audio.playbackRate = Number(element("speed").value); });
element("in").addEventListener("click", () => zoomBy(1.6));
element("out").addEventListener("click", () => zoomBy(1 / 1.6));
element("fit").addEventListener("click", () => zoomTo(0, 0));
// A button that was clicked, not reached by keyboard, gives the keys back to the page: space plays again.
for (const button of document.querySelectorAll("button")) button.addEventListener("click", event => event.detail && button.blur());

// --- pointers and keys ---

let drag = null; // the pointer that moves the cursor, and where it came down

function point(event) {
  seek(timeAtX(event.clientX - slider.getBoundingClientRect().left), false);
}

strip.addEventListener("pointerdown", event => {
  if (event.button !== 0 || !event.isPrimary || !event.target.matches(".draw")) return;
  drag = { id: event.pointerId, x: event.clientX, moves: event.pointerType === "mouse" };
  event.target.setPointerCapture(event.pointerId);
  if (drag.moves) point(event);
});
strip.addEventListener("pointermove", event => {
  if (!drag || drag.id !== event.pointerId) return;
  drag.moves ||= Math.abs(event.clientX - drag.x) > 6; // a finger trembles
  if (drag.moves) point(event);
});
strip.addEventListener("pointerup", event => {
  if (drag && drag.id === event.pointerId) point(event);
  drag = null;
});
strip.addEventListener("pointercancel", () => { drag = null; }); // the browser took the finger to pan

scroller.addEventListener("wheel", event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  const lines = event.deltaMode ? 18 : 1;
  zoomBy(Math.exp(-clamp(event.deltaY * lines, -120, 120) * 0.005), event.clientX - slider.getBoundingClientRect().left);
}, { passive: false });

let pinch = null; // distance of two fingers in pixels
const apart = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
for (const kind of ["touchstart", "touchmove"]) {
  scroller.addEventListener(kind, event => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    drag = null;
    const [one, other] = event.touches, middle = (one.clientX + other.clientX) / 2;
    if (pinch && kind === "touchmove") zoomBy(apart(event.touches) / pinch, middle - slider.getBoundingClientRect().left);
    pinch = Math.max(1, apart(event.touches));
  }, { passive: false });
}
for (const kind of ["touchend", "touchcancel"]) scroller.addEventListener(kind, () => { pinch = null; });

const KEYS = {
  " ": toggle,
  ArrowLeft: shift => seek(audio.currentTime - (shift ? 5 : 1)),
  ArrowRight: shift => seek(audio.currentTime + (shift ? 5 : 1)),
  Home: () => seek(0),
  End: () => seek(duration),
  "+": () => zoomBy(1.6),
  "=": () => zoomBy(1.6),
  "-": () => zoomBy(1 / 1.6),
  0: () => zoomTo(0, 0),
};
document.addEventListener("keydown", event => {
  const act = KEYS[event.key];
  const taken = event.target.closest(event.key === " " ? "button, select" : "select"); // it has a use for the key itself
  if (!act || taken || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(event.shiftKey);
});

// --- self-similarity ---

const matrix = element("matrix"), MARGIN = { left: 34, bottom: 32, top: 6, right: 10 };
let shown = null; // the matrix on the canvas

function matrixBox() {
  const width = matrix.clientWidth - MARGIN.left - MARGIN.right, height = matrix.clientHeight - MARGIN.top - MARGIN.bottom;
  return { width, height, x: time => MARGIN.left + ((time - shown.start) / (shown.end - shown.start)) * width,
    y: time => MARGIN.top + (1 - (time - shown.start) / (shown.end - shown.start)) * height };
}

function drawMatrix(time) {
  if (!shown || !shown.image.complete || !matrix.clientWidth) return;
  const [ctx] = context(matrix), box = matrixBox();
  ctx.imageSmoothingEnabled = box.width < shown.image.naturalWidth;
  ctx.drawImage(shown.image, MARGIN.left, MARGIN.top, box.width, box.height);
  drawAxes(ctx, box);
  if (time < shown.start || time > shown.end) return;
  for (const [colour, thick] of [["rgba(0, 0, 0, 0.55)", 3], ["#ffffff", 1.6]]) {
    ctx.fillStyle = colour;
    ctx.fillRect(box.x(time) - thick / 2, MARGIN.top, thick, box.height);
    ctx.fillRect(MARGIN.left, box.y(time) - thick / 2, box.width, thick);
  }
}

function drawAxes(ctx, box) {
  const step = tickStep(box.width / (shown.end - shown.start), 44);
  ctx.font = `11px ${colours.font}`;
  ctx.fillStyle = colours.muted;
  for (let i = Math.ceil(shown.start / step); i * step <= shown.end; i++) {
    const [text, x, y] = [tickLabel(i, step), box.x(i * step), box.y(i * step)];
    ctx.fillRect(x - 0.5, MARGIN.top + box.height, 1, 4);
    ctx.fillRect(MARGIN.left - 4, y - 0.5, 4, 1);
    Object.assign(ctx, { textAlign: "center", textBaseline: "top" });
    ctx.fillText(text, x, MARGIN.top + box.height + 6);
    Object.assign(ctx, { textAlign: "right", textBaseline: "middle" });
    ctx.fillText(text, MARGIN.left - 7, y);
  }
  Object.assign(ctx, { textAlign: "center", textBaseline: "bottom" });
  ctx.fillText("time (s)", MARGIN.left + box.width / 2, matrix.clientHeight);
}

function showMatrix(index) {
  const chosen = data.matrices[index], image = new Image();
  image.onload = () => { shown = { ...chosen, image }; drawCursor(); };
  image.src = chosen.src;
  const signed = value => value.toFixed(2).replace("-", "−");
  write(element("low"), signed(chosen.low));
  write(element("high"), signed(chosen.high));
  matrix.setAttribute("aria-label", `Self-similarity of ${chosen.name}`);
}

function pointMatrix(event, vertical) {
  if (!shown) return;
  const bounds = matrix.getBoundingClientRect(), box = matrixBox();
  const across = (event.clientX - bounds.left - MARGIN.left) / box.width;
  const up = 1 - (event.clientY - bounds.top - MARGIN.top) / box.height;
  seek(shown.start + clamp(vertical ? up : across, 0, 1) * (shown.end - shown.start));
}

if (data.matrices.length) {
  element("similarity").hidden = false;
  element("which").append(...data.matrices.map(({ name }, i) => new Option(name, String(i))));
  element("which").addEventListener("change", () => showMatrix(Number(element("which").value)));
  document.querySelector(".bar").style.background = data.bar;
  matrix.addEventListener("click", event => pointMatrix(event, event.shiftKey));
  matrix.addEventListener("contextmenu", event => { event.preventDefault(); pointMatrix(event, true); });
  showMatrix(0);
}

// --- begin ---

write(element("whole"), ` of ${duration.toFixed(2)} s`);
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); refresh(); });
for (const { image } of tiles) image.addEventListener("load", refresh);
resize();
if (view.width / duration < 14) zoomTo(14, 0); // labels of chords want some room; the rest is a scroll away

// For tests and the console: where things are. A lane is its number in lanes().
window.musictf = {
  duration,
  seek,
  xAt,
  timeAt: (lane, x) => (lanes[lane] ? timeAtX(x) : NaN),
  lanes: () => lanes.map(({ kind, name }) => ({ kind, name })),
  zoomTo,
  scrollTo,
  matrix: { xAt: time => matrixBox().x(time), yAt: time => matrixBox().y(time) },
};
