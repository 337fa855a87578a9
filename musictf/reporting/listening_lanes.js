// Lanes: what is drawn on the time axis. Every painter asks xAt for its positions; x counts CSS pixels from a lane's left edge.

const element = id => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const duration = data.duration; // seconds
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const minutes = time => {
  const hundredths = Math.floor(time * 100 + 1e-6);
  const [whole, rest] = [Math.floor(hundredths / 100), hundredths % 100];
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${String(rest).padStart(2, "0")}`;
};

function decode(base64) {
  const text = atob(base64.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The view: pixels per second, the first pixel shown, and how many are. The scroller owns `left`.
const view = { scale: 1, left: 0, width: 1 };
const xAt = time => time * view.scale - view.left;
const timeAtX = x => clamp((x + view.left) / view.scale, 0, duration);

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "muted", "faint", "accent", "wave", "beat", "onset", "curve", "curve-fill",
    "chord-l", "chord-c", "chord-tilt", "chord-ink", "none"];
  colours = Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
  colours.font = style.fontFamily;
}

// First index of an ascending list whose value is not below a time.
function firstFrom(times, time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  return low;
}

// Sizes a canvas to its box at the screen's resolution; answers its context and its size in CSS pixels.
function context(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const [columns, rows] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(columns / Math.max(1, width), 0, 0, rows / Math.max(1, height), 0, 0);
  ctx.clearRect(0, 0, width, height);
  return [ctx, width, height];
}

// Distance of labelled ticks in seconds, such that labels stay at least `room` pixels apart.
const tickStep = (scale, room) =>
  [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600].find(step => step * scale >= room) || 7200;
const tickLabel = (index, step) => (step < 0.1 ? (index * step).toFixed(2) : String(Math.round(index * step * 10) / 10));

function paintRuler(ctx, width, height) {
  const step = tickStep(view.scale, 64), parts = step === 30 || step === 300 ? 6 : 5, minor = step / parts;
  const last = Math.floor(timeAtX(width) / minor);
  ctx.font = `11px ${colours.font}`;
  ctx.textBaseline = "top";
  for (let i = Math.max(0, Math.floor(timeAtX(0) / minor) - parts); i <= last; i++) {
    const x = xAt(i * minor), major = i % parts === 0;
    ctx.fillStyle = major ? colours.muted : colours.faint;
    ctx.fillRect(x - 0.5, height - (major ? 9 : 5), 1, major ? 9 : 5);
    const text = tickLabel(i / parts, step) + (i === 0 ? " s" : "");
    const wide = ctx.measureText(text).width;
    const left = i === 0 ? Math.min(x, 0) : x - wide / 2; // the first begins at the edge
    if (major && left + wide <= width + wide / 4) ctx.fillText(text, left, 1);
  }
}

const peaks = new Int8Array(decode(data.peaks).buffer); // lowest and highest of each bin, in turn

function paintWaveform(ctx, width, height) {
  const middle = height / 2, reach = (height / 2 - 3) / 127, bins = peaks.length / 2;
  ctx.fillStyle = colours.wave;
  const end = Math.min(width, xAt(duration));
  for (let x = Math.max(0, Math.floor(xAt(0))); x < end; x++) {
    const first = Math.min(bins - 1, Math.floor(timeAtX(x) / data.peak_seconds));
    const last = Math.min(bins, Math.max(first + 1, Math.ceil(timeAtX(x + 1) / data.peak_seconds)));
    let [low, high] = [127, -128];
    for (let bin = first; bin < last; bin++) {
      low = Math.min(low, peaks[2 * bin]);
      high = Math.max(high, peaks[2 * bin + 1]);
    }
    ctx.fillRect(x, middle - high * reach - 0.5, 1, (high - low) * reach + 1);
  }
}

const tiles = data.spectrogram.tiles.map(({ src, first, columns }) => {
  const image = new Image();
  image.src = src;
  return { image, first, columns };
});

function paintSpectrogram(ctx, width, height) {
  const { start, step, rows } = data.spectrogram, ratio = ctx.getTransform().a;
  const edge = column => Math.round(xAt(start + column * step) * ratio) / ratio; // on a pixel: tiles meet without a seam
  ctx.imageSmoothingEnabled = step * view.scale * ratio < 2;
  ctx.imageSmoothingQuality = "high";
  for (const { image, first, columns } of tiles) {
    const from = clamp(Math.floor((timeAtX(0) - start) / step) - first, 0, columns);
    const to = clamp(Math.ceil((timeAtX(width) - start) / step) - first, 0, columns);
    if (to <= from || !image.complete) continue;
    const left = edge(first + from);
    ctx.drawImage(image, from, 0, to - from, image.naturalHeight, left, 0, edge(first + to) - left, height);
  }
  ctx.font = `10px ${colours.font}`;
  ctx.textBaseline = "middle";
  ctx.lineWidth = 2.5;
  ctx.lineJoin = "round";
  for (const [share, text] of rows) {
    const y = height * (1 - share);
    ctx.strokeStyle = "rgba(0, 0, 0, 0.7)";
    ctx.fillStyle = "rgba(255, 255, 255, 0.85)";
    ctx.fillRect(0, y - 0.5, 4, 1);
    ctx.strokeText(text, 7, y);
    ctx.fillText(text, 7, y);
  }
}

// A step round the circle for each fifth. The circle is tilted: lightness follows red-green, which not everybody sees.
function chordColour(fifth) {
  if (fifth < 0) return colours.none;
  const angle = (fifth / 12) * 2 * Math.PI;
  const lightness = Number(colours["chord-l"]) + Number(colours["chord-tilt"]) * Math.cos(angle);
  return `oklch(${lightness} ${colours["chord-c"]} ${(fifth * 30) % 360})`;
}

function paintChords(ctx, width, height, lane) {
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (let i = firstFrom(lane.ends, timeAtX(0)); i < lane.starts.length && xAt(lane.starts[i]) < width; i++) {
    const [left, right] = [xAt(lane.starts[i]), xAt(lane.ends[i])];
    const [from, to] = [Math.max(left, -9), Math.min(right, width + 9)];
    const gap = Math.min(0.5, (right - left) / 4);
    ctx.beginPath();
    ctx.roundRect(from + gap, 1, Math.max(0.3, to - from - 2 * gap), height - 2, Math.min(4, (right - left) / 4));
    ctx.fillStyle = chordColour(lane.roots[i]);
    ctx.globalAlpha = lane.roots[i] === -2 ? 0.45 : 1; // X, unknown: paler than N, no chord
    ctx.fill();
    ctx.globalAlpha = 1;
    writeChord(ctx, lane, i, Math.max(left, 0), Math.min(right, width), height);
  }
}

function writeChord(ctx, lane, i, left, right, height) {
  for (const [text, size] of [[lane.labels[i], 13], [lane.labels[i], 11], [lane.names[i], 11]]) {
    ctx.font = `500 ${size}px ${colours.font}`;
    if (ctx.measureText(text).width + 5 > right - left) continue;
    ctx.fillStyle = lane.roots[i] < 0 ? colours.muted : colours["chord-ink"];
    ctx.fillText(text, (left + right) / 2, height / 2 + 0.5);
    return;
  }
}

function paintTicks(ctx, width, height, lane) {
  const { times, downs } = lane;
  const [first, last] = [firstFrom(times, timeAtX(0) - 1), firstFrom(times, timeAtX(width) + 1)];
  const dense = last - first > width / 4; // marks would touch: thinner, and beats step back behind downbeats
  for (let i = first; i < last; i++) {
    const down = Boolean(downs && downs[i]), thick = dense ? 1 : down ? 2.5 : 1.5;
    const tall = lane.kind === "onsets" ? 0.56 : down ? 0.92 : 0.52;
    ctx.fillStyle = lane.kind === "onsets" ? colours.onset : colours.beat;
    ctx.globalAlpha = dense && !down ? 0.45 : 1;
    ctx.fillRect(xAt(times[i]) - thick / 2, height * (1 - tall) - 1, thick, height * tall);
  }
  ctx.globalAlpha = 1;
}

// Points to draw: where several fall on one pixel, the lowest and the highest of them, in their order.
function outline({ times, values }, first, last) {
  const kept = [];
  for (let i = first, next = first; i < last; i = next) {
    const column = Math.floor(xAt(times[i]));
    let [low, high] = [i, i];
    for (; next < last && Math.floor(xAt(times[next])) === column; next++) {
      if (values[next] < values[low]) low = next;
      if (values[next] > values[high]) high = next;
    }
    kept.push(...new Set([Math.min(low, high), Math.max(low, high)]));
  }
  return kept;
}

function paintCurve(ctx, width, height, lane) {
  const { times, values, low, high } = lane;
  const y = value => height - 4 - (high > low ? (value - low) / (high - low) : 0.5) * (height - 8);
  const first = Math.max(0, firstFrom(times, timeAtX(0)) - 1), last = Math.min(times.length, firstFrom(times, timeAtX(width)) + 1);
  ctx.beginPath();
  for (const i of outline(lane, first, last)) ctx.lineTo(xAt(times[i]), y(values[i]));
  ctx.strokeStyle = colours.curve;
  ctx.lineWidth = 1.4;
  ctx.lineJoin = "round";
  ctx.stroke();
  if (last <= first) return;
  ctx.lineTo(xAt(times[last - 1]), height);
  ctx.lineTo(xAt(times[first]), height);
  ctx.fillStyle = colours["curve-fill"];
  ctx.fill();
}

// What a lane says of a moment, beside its name.
function chordNow(lane, time) {
  const i = firstFrom(lane.ends, time + 1e-9);
  return i < lane.starts.length && lane.starts[i] <= time ? lane.labels[i] : "";
}
function curveNow(lane, time) {
  const i = firstFrom(lane.times, time), before = Math.max(0, i - 1);
  if (!i || i === lane.times.length) return "";
  const nearest = time - lane.times[before] < lane.times[i] - time ? before : i;
  return Number(lane.values[nearest].toPrecision(3)).toString().replace("-", "−");
}

const KINDS = {
  ruler: { height: 26, paint: paintRuler },
  waveform: { height: 84, paint: paintWaveform },
  spectrogram: { height: 190, paint: paintSpectrogram },
  chords: { height: 36, paint: paintChords, now: chordNow },
  beats: { height: 34, paint: paintTicks },
  onsets: { height: 34, paint: paintTicks },
  curve: { height: 60, paint: paintCurve, now: curveNow },
};
