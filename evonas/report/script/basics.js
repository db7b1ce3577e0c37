// What all parts of a report use: elements, numbers, networks, the tip, plots.

const DATA = JSON.parse(document.getElementById("report").textContent);
const RUNS = DATA.runs;
const SVG = "http://www.w3.org/2000/svg";
const root = document.documentElement;
const tip = document.getElementById("tip");
const PAGE = 25; // rows of the table of evaluations at a time
const NEAR = 16; // pixels from a dot to the pointer
const RELATIVES = 60; // networks in a lineage

// ---- Elements -----------------------------------------------------------------------------------

/** Makes an element; `on...` properties are listeners, `text` its text, all others attributes. */
function make(space, tag, properties, children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(there));
  return element;
}
const there = child => child !== null && child !== undefined;
const el = (tag, properties = {}, ...children) => make(null, tag, properties, children);
const sv = (tag, properties = {}, ...children) => make(SVG, tag, properties, children);

const colour = name => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;

const VIRIDIS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];
/** A colour between early (0) and late (1), without the end of viridis that the background swallows. */
function shade(share) {
  const place = 5 * (isDark() ? 0.3 + 0.7 * share : 0.85 * share);
  const i = Math.min(4, Math.floor(place));
  const mixed = VIRIDIS[i].map((from, k) => Math.round(from + (place - i) * (VIRIDIS[i + 1][k] - from)));
  return `rgb(${mixed.join(",")})`;
}

// Drawings of networks are SVG made with the page; one is parsed when it is first shown.
function drawing(run, key) {
  const text = (run.drawings || {})[key];
  if (!text) return null;
  return document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
}

// ---- Numbers ------------------------------------------------------------------------------------

const missing = value => value === null || value === undefined || Number.isNaN(value);

function shown(metric, value) {
  if (missing(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (metric.share) return `${(100 * value).toFixed(2)} %`;
  if (Math.abs(value) >= 1e12) return value.toExponential(3);
  if (Number.isInteger(value) && Math.abs(value) >= 1) return value.toLocaleString("en");
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toFixed(4);
}

function short(metric, value) {
  if (metric.share) return String(Number((100 * value).toPrecision(6)));
  if (metric.large) {
    for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(4))}${unit}`;
    }
  }
  return String(Number(value.toPrecision(6)));
}

const titled = metric => metric.share ? `${metric.label} (%)` : metric.label;
const finite = values => values.filter(value => !missing(value) && Number.isFinite(value));

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** Maps values to pixels; `log` only if both ends are positive. */
function scale(from, to, start, end, log = false) {
  const way = log && from > 0 ? Math.log10 : value => value;
  const back = log && from > 0 ? value => 10 ** value : value => value;
  const a = way(from), b = way(to), span = b - a || 1;
  const place = value => start + (way(value) - a) / span * (end - start);
  place.at = pixel => back(a + (pixel - start) / (end - start) * span);
  place.ticks = count => way === Math.log10 ? decades(from, to, count) : steps(from, to, count);
  place.ends = [from, to];
  return place;
}

function steps(from, to, count) {
  const raw = (to - from) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find(each => each * power >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

function decades(from, to, count) {
  const few = Math.log10(to / from) > 2.5 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++) {
    for (const part of few) ticks.push(part * 10 ** power);
  }
  const inside = ticks.filter(tick => tick >= from && tick <= to);
  return inside.length > 1 ? inside : steps(from, to, count);
}

// ---- Networks -----------------------------------------------------------------------------------

for (const run of RUNS) prepare(run);

/** Indexes a run's columns by network, and finds who was ever on the front. */
function prepare(run) {
  run.goals = run.metrics.slice(0, run.objectives);
  if (!run.rows) return;
  const nth = {name: "evaluation", label: "evaluation", share: false, large: run.of > 1000, log: false};
  run.axes = [...run.metrics, ...(run.values.evaluation ? [] : [nth])];
  run.values.evaluation ??= run.index.map(index => index + 1);
  run.first = new Map(); // the first row of each network
  run.asked = new Map(); // all its rows
  for (let row = 0; row < run.rows; row++) {
    const key = run.key[row];
    if (!run.first.has(key)) { run.first.set(key, row); run.asked.set(key, []); }
    run.asked.get(key).push(row);
  }
  run.ok = row => text(run, "status", row) === "ok";
  run.since = new Map(); // the generation in which a row joined the front
  for (const [generation, rows] of run.fronts) {
    for (const row of rows) if (!run.since.has(row)) run.since.set(row, generation);
  }
  run.front = run.fronts.length ? run.fronts[run.fronts.length - 1][1] : [];
  run.last = run.generation.reduce((a, b) => Math.max(a, b), 1);
  const onFront = new Map(run.front.map(row => [run.key[row], row]));
  const ever = new Map([...run.since.keys()].map(row => [run.key[row], row]));
  /** The row that stands for a network: on the front if it was, else its last good one. */
  run.rowOf = key => onFront.get(key) ?? ever.get(key)
    ?? run.asked.get(key).findLast(run.ok) ?? run.first.get(key);
  run.watchers = [];
  run.pinned = null;
  run.pin = key => { run.pinned = key; run.watchers.forEach(watch => watch(key)); };
}

const text = (run, name, row) => run.texts[name].names[run.texts[name].codes[row]];
const value = (run, metric, row) => run.values[metric.name][row];
const word = (run, key) => key === run.winner ? run.winnerWord : key === run.knee ? "knee of the front" : "";

/** Names and texts of what the search measured of a row. */
function measured(run, row) {
  return run.metrics.map(metric => [metric.label, shown(metric, value(run, metric, row))]);
}

function pairs(list) {
  return el("dl", {class: "facts"}, list.map(([name, told, condition]) =>
    el("div", {}, el("dt", {}, name, condition ? el("small", {text: condition}) : null), el("dd", {text: told}))));
}

function keyButton(run, key, label = run.keys[key]) {
  return el("button", {type: "button", class: "keyed", text: label, title: label, onclick: () => {
    run.pin(key);
    const details = document.querySelector(`[data-front="${RUNS.indexOf(run)}"] .details`);
    const place = details && details.getBoundingClientRect();
    if (place && (place.bottom < 80 || place.top > innerHeight - 80)) details.scrollIntoView({block: "nearest"});
  }});
}

// ---- The tip ------------------------------------------------------------------------------------

function showTip(x, y, ...content) {
  tip.replaceChildren(...content.filter(there));
  tip.hidden = false;
  const {offsetWidth: width, offsetHeight: height} = tip;
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - height - 8))}px`;
}
const hideTip = () => { tip.hidden = true; };

function tipOf(run, row) {
  const key = run.key[row];
  const list = [...measured(run, row).filter((_, i) => i < Math.max(4, run.objectives)),
    ["generation", run.generation[row].toLocaleString("en")], ["origin", text(run, "origin", row)]];
  return [el("code", {text: text(run, "genome", row)}),
    el("dl", {}, list.flatMap(([name, told]) => [el("dt", {text: name}), el("dd", {text: told})])),
    drawing(run, key)];
}

// ---- A plot: a box that draws itself again when its size or the theme changes ---------------------

const plots = new Set();

function plot(label, height, draw) {
  const canvas = el("canvas", {"aria-hidden": "true"});
  const over = sv("svg", {"aria-hidden": "true"});
  const box = el("div", {class: "plot", tabindex: "0", role: "group", "aria-label": label}, canvas, over);
  const size = () => Math.min(height, Math.max(220, 0.8 * box.clientWidth));
  let width = 0;
  box.redraw = () => {
    width = box.clientWidth;
    if (!width) return;
    const tall = size(), ratio = window.devicePixelRatio || 1;
    box.style.height = `${tall}px`;
    canvas.width = width * ratio; canvas.height = tall * ratio;
    canvas.style.width = `${width}px`; canvas.style.height = `${tall}px`;
    over.setAttribute("viewBox", `0 0 ${width} ${tall}`);
    over.setAttribute("width", width); over.setAttribute("height", tall);
    over.replaceChildren();
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, tall);
    draw({over, pen, width, height: tall});
  };
  plots.add(box);
  new ResizeObserver(() => { if (box.clientWidth !== width) box.redraw(); }).observe(box);
  return box;
}

/** Draws axes and returns the scales; `left` leaves room for the widest label. */
function axes({over, width, height}, x, y, limits, {bottom = 40, top = 26} = {}) {
  const down = scale(limits.y[0], limits.y[1], height - bottom, top, y.log);
  const rows = down.ticks(Math.max(2, Math.floor(height / 70)));
  const left = 14 + 7 * Math.max(2, ...rows.map(tick => short(y, tick).length));
  const across = scale(limits.x[0], limits.x[1], left, width - 12, x.log);
  const columns = across.ticks(Math.max(2, Math.floor(width / (x.share || x.large ? 95 : 60))));
  for (const tick of rows) {
    over.append(sv("path", {class: "axis", d: `M${left} ${down(tick)}H${width - 12}`}),
      sv("text", {x: left - 8, y: down(tick), dy: ".35em", "text-anchor": "end", text: short(y, tick)}));
  }
  for (const tick of columns) {
    over.append(sv("path", {class: "axis", d: `M${across(tick)} ${height - bottom}v4`}),
      sv("text", {x: across(tick), y: height - bottom + 18, "text-anchor": "middle", text: short(x, tick)}));
  }
  over.append(
    sv("text", {class: "name", x: width - 12, y: height - 4, "text-anchor": "end", text: titled(x)}),
    sv("text", {class: "name", x: 0, y: 12, text: titled(y)}));
  return {across, down, left, bottom: height - bottom, top, right: width - 12};
}

const MARKS = {
  star: (x, y, r) => "M" + [...Array(10).keys()].map(i => {
    const turn = Math.PI * (i / 5 - 0.5), far = i % 2 ? 0.45 * r : r;
    return `${x + far * Math.cos(turn)} ${y + far * Math.sin(turn)}`;
  }).join("L") + "Z",
  diamond: (x, y, r) => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z`,
  triangle: (x, y, r) => `M${x} ${y - r}L${x + r} ${y + 0.8 * r}L${x - r} ${y + 0.8 * r}Z`,
  dot: (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  line: (x, y, r) => `M${x - r} ${y}h${2 * r}`,
};

function legend(entries) {
  return el("ul", {class: "key"}, entries.map(({mark, name, ...look}) => el("li", {},
    sv("svg", {width: 22, height: 14, "aria-hidden": "true"},
      sv("path", {d: MARKS[mark](11, 7, mark === "line" ? 10 : mark === "star" ? 7 : 4.5), ...look})), name)));
}
