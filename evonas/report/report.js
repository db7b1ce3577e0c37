// The figures and tables of a report. All data are in the page; nothing is loaded.
"use strict";
(() => {
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

// ---- The front ----------------------------------------------------------------------------------

/** A scatter of two metrics. With `moving`, it shows the search up to a generation. */
function scatter(run, {moving = false} = {}) {
  const chosen = run.objectives > 1 ? [0, 1] : [run.axes.length - 1, 0];
  let view = null, hovered = null, marked = null, now = run.last, places = null, drag = null;
  const metric = i => run.axes[chosen[i]];
  const good = [...Array(run.rows).keys()].filter(run.ok);

  const ranges = new Map();
  const range = which => {
    if (!ranges.has(which.name)) ranges.set(which.name, usual(which));
    return ranges.get(which.name);
  };

  /** The range of a metric, without the worst 5 % where they would widen it by more than half. */
  function usual(which) {
    const values = finite(good.map(row => value(run, which, row))).sort((a, b) => a - b);
    if (!values.length) return [0, 1];
    const kept = finite([...run.since.keys()].map(row => value(run, which, row)));
    if (!moving) run.finals.forEach(each => finite([each.values[which.name]]).forEach(v => kept.push(v)));
    let low = Math.min(values[0], ...kept), high = Math.max(values[values.length - 1], ...kept);
    if (which.goal === "min" && !which.log) {
      const worst = Math.max(quantile(values, 0.95), ...kept);
      if (high - low > 1.5 * (worst - low)) high = worst;
    } else if (which.goal === "max" && !which.log) {
      const worst = Math.min(quantile(values, 0.05), ...kept);
      if (high - low > 1.5 * (high - worst)) low = worst;
    }
    if (which.log && low > 0) return [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
    const margin = 0.05 * (high - low || Math.abs(high) || 1);
    return [low - margin, high + margin];
  }

  const members = () => moving
    ? (run.fronts.filter(([generation]) => generation <= now).pop() || [0, []])[1] : run.front;

  function draw(page) {
    const [x, y] = [metric(0), metric(1)];
    const limits = view || {x: range(x), y: range(y)};
    places = axes(page, x, y, limits);
    places.limits = limits;
    const {across, down} = places, {over, pen} = page;
    pen.save();
    pen.beginPath();
    pen.rect(places.left - 4, places.top - 4, places.right - places.left + 8, places.bottom - places.top + 8);
    pen.clip();
    const dots = (rows, fill, radius, alpha) => {
      pen.fillStyle = fill; pen.globalAlpha = alpha;
      pen.beginPath();
      for (const row of rows) {
        const a = value(run, x, row), b = value(run, y, row);
        if (missing(a) || missing(b)) continue;
        const px = across(a), py = down(b);
        pen.moveTo(px + radius, py);
        pen.arc(px, py, radius, 0, 2 * Math.PI);
      }
      pen.fill(); pen.globalAlpha = 1;
    };
    const before = moving ? good.filter(row => run.generation[row] < now) : good;
    const many = before.length > 3000;
    dots(before, colour("dot"), many ? 1.6 : 2.4, moving ? 0.22 : many ? 0.35 : 0.5);
    if (moving) dots(good.filter(row => run.generation[row] === now), colour("blue"), 3.6, 0.85);
    const front = members(), staired = run.objectives === 2 && chosen[0] < 2 && chosen[1] < 2 && chosen[0] !== chosen[1];
    if (!moving) {
      for (const row of run.since.keys()) dots([row], shade((run.since.get(row) - 1) / Math.max(1, run.last - 1)), 3.6, 1);
    }
    if (staired && front.length) {
      const points = front.map(row => [across(value(run, x, row)), down(value(run, y, row))])
        .sort((a, b) => (x.goal === "max" ? b[0] - a[0] : a[0] - b[0]));
      pen.beginPath(); pen.moveTo(...points[0]);
      for (const [i, point] of points.slice(1).entries()) { pen.lineTo(point[0], points[i][1]); pen.lineTo(...point); }
      pen.strokeStyle = colour("ink"); pen.lineWidth = 1.2; pen.globalAlpha = 0.75; pen.stroke(); pen.globalAlpha = 1;
    }
    pen.strokeStyle = colour("ink"); pen.lineWidth = 1.3;
    for (const row of front) {
      if (missing(value(run, x, row)) || missing(value(run, y, row))) continue;
      pen.beginPath(); pen.arc(across(value(run, x, row)), down(value(run, y, row)), 5, 0, 2 * Math.PI); pen.stroke();
    }
    pen.restore();
    if (!moving) again(over, x, y);
    for (const row of new Set([marked, hovered])) ring(over, row);
    if (drag) {
      over.append(sv("rect", {x: Math.min(drag.x0, drag.x1), y: Math.min(drag.y0, drag.y1),
        width: Math.abs(drag.x1 - drag.x0), height: Math.abs(drag.y1 - drag.y0),
        fill: colour("blue"), "fill-opacity": 0.12, stroke: colour("blue")}));
    }
  }

  const inside = (px, py) => px >= places.left - 6 && px <= places.right + 6 && py >= places.top - 6 && py <= places.bottom + 6;

  /** Draws finalists where their finals put them, the winner and the knee. */
  function again(over, x, y) {
    const {across, down} = places;
    const mark = (shape, px, py, look) => {
      if (inside(px, py)) over.append(sv("path", {d: MARKS[shape](px, py, shape === "star" ? 9 : 6), ...look}));
    };
    const at = new Map();
    for (const each of run.finals) {
      const row = run.rowOf(each.key);
      const there = [x, y].map(m => each.values[m.name] ?? value(run, m, row));
      const from = [across(value(run, x, row)), down(value(run, y, row))];
      const to = [across(there[0]), down(there[1])];
      if (to.some(Number.isNaN)) continue;
      at.set(each.key, to);
      if (inside(...from) && inside(...to)) {
        over.append(sv("path", {d: `M${from}L${to}`, stroke: colour("vermilion"), opacity: 0.7, fill: "none"}));
      }
      mark("diamond", ...to, {fill: colour("surface"), stroke: colour("vermilion"), "stroke-width": 1.5});
    }
    const spot = key => at.get(key) || [across(value(run, x, run.rowOf(key))), down(value(run, y, run.rowOf(key)))];
    if (run.knee >= 0) mark("triangle", ...spot(run.knee), {fill: colour("orange"), stroke: colour("ink")});
    if (run.winner >= 0) mark("star", ...spot(run.winner), {fill: colour("vermilion"), stroke: colour("surface")});
  }

  function ring(over, row) {
    if (row === null || [0, 1].some(i => missing(value(run, metric(i), row)))) return;
    const px = places.across(value(run, metric(0), row)), py = places.down(value(run, metric(1), row));
    if (!Number.isNaN(px + py) && inside(px, py)) {
      over.append(sv("path", {d: MARKS.dot(px, py, 9), fill: "none", stroke: colour("focus"), "stroke-width": row === marked ? 2.5 : 1.5}));
    }
  }

  const keys = "arrow keys walk along it, Enter keeps a network, plus, minus and 0 zoom";
  const box = plot(moving ? `Population and front by generation; ${keys}` : `The front; ${keys}`, moving ? 400 : 540, draw);

  function nearest(event) {
    const place = box.getBoundingClientRect(), px = event.clientX - place.left, py = event.clientY - place.top;
    let best = null, least = NEAR;
    const [x, y] = [metric(0), metric(1)];
    for (const row of good) {
      if (moving && run.generation[row] > now) continue;
      const a = value(run, x, row), b = value(run, y, row);
      if (missing(a) || missing(b)) continue;
      // of two equally near, one of the front
      const far = Math.hypot(places.across(a) - px, places.down(b) - py) - (run.since.has(row) ? 2 : 0);
      if (far < least) { least = far; best = row; }
    }
    return best;
  }

  function hover(row, x, y) {
    if (row !== hovered) { hovered = row; box.redraw(); }
    if (row === null) hideTip(); else showTip(x, y, ...tipOf(run, row));
  }

  box.addEventListener("pointermove", event => {
    if (drag) {
      const place = box.getBoundingClientRect();
      drag.x1 = event.clientX - place.left; drag.y1 = event.clientY - place.top;
      if (drag.moved || Math.hypot(drag.x1 - drag.x0, drag.y1 - drag.y0) > 6) { drag.moved = true; hideTip(); box.redraw(); }
      return;
    }
    if (event.pointerType !== "touch") hover(nearest(event), event.clientX, event.clientY);
  });
  box.addEventListener("pointerleave", () => { if (!drag) hover(null); });
  box.addEventListener("pointerdown", event => {
    if (event.pointerType === "touch" || event.button) return;
    const place = box.getBoundingClientRect(), px = event.clientX - place.left, py = event.clientY - place.top;
    drag = {x0: px, y0: py, x1: px, y1: py, moved: false};
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointerup", () => {
    const drawn = drag;
    drag = null;
    if (!drawn || !drawn.moved) return;
    const {across, down} = places;
    const xs = [across.at(drawn.x0), across.at(drawn.x1)].sort((a, b) => a - b);
    const ys = [down.at(drawn.y0), down.at(drawn.y1)].sort((a, b) => a - b);
    if (xs[1] > xs[0] && ys[1] > ys[0]) zoomTo({x: xs, y: ys}); else box.redraw();
    box.dataset.dragged = "yes";
  });
  box.addEventListener("click", event => {
    if (box.dataset.dragged) { delete box.dataset.dragged; return; }
    const row = nearest(event);
    if (row !== null) { run.pin(run.key[row]); if (event.pointerType === "touch") hover(null); }
  });
  box.addEventListener("dblclick", () => zoomTo(null));
  box.addEventListener("keydown", event => {
    const walk = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    if (walk) {
      const [x, y] = [metric(0), metric(1)];
      const rows = members().filter(row => !missing(value(run, x, row)) && !missing(value(run, y, row)))
        .sort((a, b) => value(run, x, a) - value(run, x, b));
      if (!rows.length) return;
      const i = rows.indexOf(hovered), next = rows[i < 0 ? 0 : (i + walk + rows.length) % rows.length];
      const place = box.getBoundingClientRect();
      hover(next, place.left + places.across(value(run, x, next)), place.top + places.down(value(run, y, next)));
    } else if ((event.key === "Enter" || event.key === " ") && hovered !== null) run.pin(run.key[hovered]);
    else if (event.key === "+" || event.key === "=") zoom(0.6);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "0") zoomTo(null);
    else if (event.key === "Escape") hover(null);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", () => hover(null));

  function zoomTo(next) { view = next; home.disabled = !next; box.redraw(); }

  /** Zooms about the pinned network if it is in view, else about the middle. */
  function zoom(factor) {
    const row = hovered ?? marked;
    const about = (i, place, ends, [start, end]) => {
      const at = row === null ? NaN : place(value(run, metric(i), row));
      const middle = at >= Math.min(start, end) && at <= Math.max(start, end) ? at : (start + end) / 2;
      return [start, end].map(edge => place.at(middle + (edge - middle) * factor)).sort((a, b) => a - b);
    };
    zoomTo({x: about(0, places.across, null, [places.left, places.right]),
      y: about(1, places.down, null, [places.bottom, places.top])});
  }

  const home = el("button", {type: "button", text: "Reset zoom", disabled: true, onclick: () => zoomTo(null)});
  const selects = run.axes.length > 2 ? ["x", "y"].map((name, i) => el("label", {}, `${name} axis`,
    el("select", {onchange: event => { chosen[i] = Number(event.target.value); view = null; home.disabled = true; box.redraw(); }},
      run.axes.map((each, k) => el("option", {value: k, selected: k === chosen[i], text: each.label}))))) : [];
  const controls = el("div", {class: "controls"}, selects,
    el("button", {type: "button", text: "+", "aria-label": "Zoom in", class: "end", onclick: () => zoom(0.6)}),
    el("button", {type: "button", text: "–", "aria-label": "Zoom out", onclick: () => zoom(1 / 0.6)}), home);
  run.watchers.push(key => { marked = run.rowOf(key); box.redraw(); });
  box.show = generation => { now = generation; box.redraw(); };
  return {box, controls};
}

function frontLegend(run) {
  const ramp = el("canvas", {width: 60, height: 8, "aria-hidden": "true"});
  const paint = () => {
    const pen = ramp.getContext("2d");
    for (let i = 0; i < 60; i++) { pen.fillStyle = shade(i / 59); pen.fillRect(i, 0, 1, 8); }
  };
  paint();
  plots.add({redraw: paint});
  const list = legend([
    {mark: "dot", name: "evaluated", fill: "var(--dot)"},
    ...(run.front.length ? [{mark: "dot", name: "front", fill: "none", stroke: "var(--ink)", "stroke-width": 1.4}] : []),
    ...(run.winner >= 0 ? [{mark: "star", name: run.winnerWord, fill: "var(--vermilion)"}] : []),
    ...(run.knee >= 0 ? [{mark: "triangle", name: "knee", fill: "var(--orange)", stroke: "var(--ink)"}] : []),
    ...(run.finals.length ? [{mark: "diamond", name: "finalist, mean of its seeds", fill: "var(--surface)", stroke: "var(--vermilion)"}] : []),
  ]);
  if (run.last > 1 && run.since.size) list.append(el("li", {}, "joined the front: generation 1", ramp, String(run.last)));
  return list;
}

// ---- Details of a network -----------------------------------------------------------------------

function showDetails(run, host, key) {
  const row = run.rowOf(key), rows = run.asked.get(key);
  const name = word(run, key);
  const born = run.first.get(key);
  const told = [...measured(run, row), ...(run.facts[key] || []),
    ["first tried", `generation ${run.generation[born]}`, text(run, "origin", born)]];
  host.replaceChildren(...[
    el("h3", {text: run.keys[key]}), name ? el("p", {class: "says", text: name}) : null,
    el("code", {text: text(run, "genome", row)}), drawing(run, key), pairs(told),
    el("h4", {text: "Parents"}), family(run, key, 3) || el("p", {class: "says", text: "none: it was not bred from others"}),
    el("h4", {text: rows.length === 1 ? "Its row" : `Its ${rows.length} rows`}), rowsOf(run, rows.slice(0, 20))].filter(there));
}

/** Nested lists of parents, and theirs. */
function family(run, key, depth, seen = new Set([key])) {
  const parents = run.parents[run.first.get(key)].filter(parent => !seen.has(parent));
  if (!parents.length || !depth) return null;
  parents.forEach(parent => seen.add(parent));
  return el("ul", {}, parents.map(parent => el("li", {}, keyButton(run, parent),
    ` ${shown(run.goals[0], value(run, run.goals[0], run.rowOf(parent)))}`, family(run, parent, depth - 1, seen))));
}

function rowsOf(run, rows) {
  const columns = ["generation", "index", "status", ...run.goals.map(goal => goal.label)];
  return grid("Rows of evaluations.csv", columns, rows.map(row => [
    run.generation[row], run.index[row], text(run, "status", row) + (run.cached[row] ? ", repeat" : ""),
    ...run.goals.map(goal => shown(goal, value(run, goal, row)))]));
}

function grid(label, columns, rows) {
  return el("div", {class: "grid", tabindex: "0", role: "group", "aria-label": label}, el("table", {},
    el("thead", {}, el("tr", {}, columns.map(name => el("th", {scope: "col", text: name})))),
    el("tbody", {}, rows.map(cells => el("tr", {}, cells.map(cell => el("td", {}, cell instanceof Node ? cell : String(cell))))))));
}

// ---- Parallel coordinates -----------------------------------------------------------------------

function parallel(run) {
  let hovered = null, marked = null, places = null;
  const brushes = run.goals.map(() => null);
  const rows = run.front.filter(row => run.goals.every(goal => Number.isFinite(value(run, goal, row))));
  if (!rows.length) return el("p", {class: "note", text: "No network is on the front."});
  const passes = row => run.goals.every((goal, i) => !brushes[i] ||
    (places[i](value(run, goal, row)) >= brushes[i][0] && places[i](value(run, goal, row)) <= brushes[i][1]));
  let across = i => i;

  const box = plot("The front by all objectives; arrow keys walk along it, Enter keeps a network", 320, ({over, width, height}) => {
    across = i => 60 + i * (width - 120) / Math.max(1, run.goals.length - 1);
    places = run.goals.map(goal => {
      const ends = rows.map(row => value(run, goal, row));
      let [low, high] = [Math.min(...ends), Math.max(...ends)];
      if (low === high) { low -= Math.abs(low) || 1; high += Math.abs(high) || 1; }
      return goal.goal === "max" ? scale(low, high, height - 30, 40, goal.log) : scale(low, high, 40, height - 30, goal.log);
    });
    const line = (row, look) => over.append(sv("path", {
      d: "M" + run.goals.map((goal, i) => `${across(i)} ${places[i](value(run, goal, row))}`).join("L"), fill: "none", ...look}));
    for (const row of rows) {
      line(row, passes(row) ? {stroke: colour("blue"), "stroke-width": 1.2, opacity: rows.length > 60 ? 0.4 : 0.65}
        : {stroke: colour("dot"), "stroke-width": 1, opacity: 0.18});
    }
    const best = rows.find(row => run.key[row] === run.winner);
    if (best !== undefined) line(best, {stroke: colour("vermilion"), "stroke-width": 2.4});
    for (const row of new Set([marked, hovered])) {
      if (rows.includes(row)) line(row, {stroke: colour("ink"), "stroke-width": 2.4, "stroke-dasharray": row === hovered ? "" : "5 3"});
    }
    run.goals.forEach((goal, i) => {
      const anchor = i === 0 ? "start" : i === run.goals.length - 1 ? "end" : "middle";
      const at = across(i) + (anchor === "start" ? -56 : anchor === "end" ? 56 : 0);
      over.append(sv("path", {d: `M${across(i)} 40V${height - 30}`, stroke: colour("soft"), fill: "none"}),
        sv("text", {class: "name", x: at, y: i % 2 && run.goals.length > width / 130 ? 26 : 12, "text-anchor": anchor, text: titled(goal)}),
        ...[0, 1].map(end => {
          const pixel = end ? height - 30 : 40;
          return sv("text", {x: across(i) + (anchor === "end" ? 6 : -6), y: pixel, dy: end ? "1.2em" : "-.4em",
            "text-anchor": anchor === "end" ? "start" : anchor === "start" ? "end" : "middle", text: short(goal, places[i].at(pixel))});
        }));
      if (brushes[i]) {
        over.append(sv("rect", {x: across(i) - 8, y: brushes[i][0], width: 16, height: brushes[i][1] - brushes[i][0],
          fill: colour("orange"), "fill-opacity": 0.3, stroke: colour("orange")}));
      }
    });
  });

  const at = event => { const place = box.getBoundingClientRect(); return [event.clientX - place.left, event.clientY - place.top]; };
  /** The line that passes nearest to a point. */
  function nearest([px, py]) {
    let best = null, least = NEAR;
    for (const row of rows.filter(passes)) {
      for (let i = 0; i + 1 < run.goals.length; i++) {
        if (px < across(i) || px > across(i + 1)) continue;
        const share = (px - across(i)) / (across(i + 1) - across(i));
        const [a, b] = [i, i + 1].map(k => places[k](value(run, run.goals[k], row)));
        const far = Math.abs(a + share * (b - a) - py);
        if (far < least) { least = far; best = row; }
      }
    }
    return best;
  }
  function hover(row, x, y) {
    if (row !== hovered) { hovered = row; box.redraw(); }
    if (row === null) hideTip(); else showTip(x, y, ...tipOf(run, row));
  }
  let brushing = null;
  box.addEventListener("pointerdown", event => {
    const [px, py] = at(event), i = run.goals.findIndex((_, k) => Math.abs(across(k) - px) < 14);
    if (i < 0 || event.pointerType === "touch") return;
    brushing = {i, from: py};
    brushes[i] = null;
    box.setPointerCapture(event.pointerId);
    box.redraw();
  });
  box.addEventListener("pointermove", event => {
    const [px, py] = at(event);
    if (!brushing) return hover(nearest([px, py]), event.clientX, event.clientY);
    if (Math.abs(py - brushing.from) > 4) brushes[brushing.i] = [Math.min(py, brushing.from), Math.max(py, brushing.from)];
    box.redraw();
  });
  box.addEventListener("pointerup", () => { brushing = null; });
  box.addEventListener("pointerleave", () => hover(null));
  box.addEventListener("click", event => { const row = nearest(at(event)); if (row !== null) run.pin(run.key[row]); });
  box.addEventListener("blur", () => hover(null));
  box.addEventListener("keydown", event => {
    const walk = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    const sorted = [...rows].sort((a, b) => value(run, run.goals[0], a) - value(run, run.goals[0], b));
    if (walk && sorted.length) {
      const i = sorted.indexOf(hovered), next = sorted[i < 0 ? 0 : (i + walk + sorted.length) % sorted.length];
      const place = box.getBoundingClientRect();
      hover(next, place.left + across(0), place.top + places[0](value(run, run.goals[0], next)));
    } else if (event.key === "Enter" && hovered !== null) run.pin(run.key[hovered]);
    else if (event.key === "Escape") { brushes.fill(null); hover(null); box.redraw(); } else return;
    event.preventDefault();
  });
  run.watchers.push(key => { marked = run.rowOf(key); box.redraw(); });
  return box;
}

// ---- The population over generations ------------------------------------------------------------

function dynamics(run) {
  const {box, controls} = scatter(run, {moving: true});
  const slider = el("input", {type: "range", min: 1, max: run.last, value: run.last, "aria-label": "Generation"});
  const told = el("output", {});
  let timer = null;
  const show = () => {
    const now = Number(slider.value);
    const some = run.generation.filter(generation => generation === now).length;
    const front = (run.fronts.filter(([generation]) => generation <= now).pop() || [0, []])[1].length;
    told.textContent = `generation ${now} of ${run.last}: ${some} candidates, ${front} on the front`;
    slider.setAttribute("aria-valuetext", told.textContent);
    box.show(now);
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const play = el("button", {type: "button", text: "Play", onclick: () => {
    if (timer) return stop();
    if (Number(slider.value) >= run.last) slider.value = 1;
    play.textContent = "Pause";
    const step = Math.max(1, Math.round(run.last / 120));
    timer = setInterval(() => {
      slider.value = Math.min(run.last, Number(slider.value) + step);
      show();
      if (Number(slider.value) >= run.last) stop();
    }, Math.min(600, Math.max(80, 12000 / run.last)));
    show();
  }});
  slider.addEventListener("input", () => { stop(); show(); });
  const bar = el("div", {class: "controls"}, play, el("label", {class: "wide"}, slider), told);
  const note = el("p", {class: "says", text: "Blue: the candidates of the generation; grey: earlier ones; rings: the front so far."});
  requestAnimationFrame(show);
  return [note, bar, controls, box];
}

// ---- Lines and bars -----------------------------------------------------------------------------

function chart(figure) {
  const all = figure.series.map(line => [...(line.at || figure.at)]);
  const y = figure.y, x = {label: figure.x, share: false, large: figure.x !== "generation", log: false};
  const sums = figure.stacked && figure.at.map((_, i) => figure.series.reduce((sum, line) => sum + (line.values[i] || 0), 0));
  const values = finite(figure.stacked ? sums : figure.series.flatMap(line => [...line.values, ...(line.low || []), ...(line.high || [])]));
  const places = finite(all.flat());
  let cursor = null, frame = null;
  const stops = [...new Set(places)].sort((a, b) => a - b);

  function limits() {
    let low = Math.min(...values), high = Math.max(...values);
    if (!values.length) [low, high] = [0, 1];
    if (y.zero) [low, high] = [0, 1.08 * high || 1];
    else if (y.log && low > 0) { const margin = (high / low) ** 0.05; low /= margin; high *= margin; }
    else { const margin = 0.06 * (high - low || Math.abs(high) || 1); low -= margin; high += margin; }
    const half = figure.stacked ? 0.6 : stops.length > 1 ? 0 : 0.5;
    return {x: [stops[0] - half, stops[stops.length - 1] + half], y: [low, high]};
  }

  const box = plot(`${figure.title}; arrow keys read the values`, 230, page => {
    const {over, width} = page;
    frame = axes(page, x, y, limits(), {});
    const {across, down} = frame;
    if (figure.stacked) {
      const wide = Math.max(1, 0.8 * Math.abs(across(stops[0] + 1) - across(stops[0])));
      figure.at.forEach((place, i) => {
        let base = 0;
        for (const line of figure.series) {
          const tall = line.values[i] || 0;
          if (tall > 0) {
            over.append(sv("rect", {x: across(place) - wide / 2, y: down(base + tall), width: wide,
              height: Math.max(0.5, down(base) - down(base + tall)), fill: `var(--${line.colour})`}));
          }
          base += tall;
        }
      });
    }
    for (const [k, line] of figure.stacked ? [] : figure.series.entries()) {
      const stroke = `var(--${line.colour})`;
      if (line.low) {
        const rows = all[k].map((place, i) => [place, line.low[i], line.high[i]]).filter(([, low, high]) => !missing(low) && !missing(high));
        if (rows.length > 1) {
          const up = trace(rows.map(([place, , high]) => [across(place), down(high)]), line.step || figure.step);
          const back = trace(rows.map(([place, low]) => [across(place), down(low)]), line.step || figure.step);
          over.append(sv("path", {d: `M${up.join("L")}L${back.reverse().join("L")}Z`, fill: stroke, opacity: 0.14}));
        }
      }
      for (const part of runsOf(all[k], line.values)) {
        const points = part.map(([place, each]) => [across(place), down(each)]);
        over.append(points.length > 1
          ? sv("path", {d: "M" + trace(points, line.step || figure.step).join("L"), fill: "none", stroke, "stroke-width": 1.8,
            "stroke-dasharray": line.dash, "stroke-linejoin": "round", "stroke-linecap": line.dash ? "butt" : "round"})
          : sv("path", {d: MARKS.dot(...points[0], 3), fill: stroke}));
      }
    }
    if (cursor !== null) {
      over.append(sv("path", {d: `M${across(cursor)} ${frame.top}V${frame.bottom}`, stroke: "var(--soft)", "stroke-dasharray": "3 3"}));
    }
  });

  /** The value of a line at a place: there, or, of a step, the last before it. */
  function at(k, place) {
    let i = -1;
    while (i + 1 < all[k].length && all[k][i + 1] <= place) i++;
    if (i < 0) return null;
    return all[k][i] === place || figure.step || figure.series[k].step ? figure.series[k].values[i] : null;
  }
  function move(place, clientX, clientY) {
    cursor = place;
    box.redraw();
    if (place === null) return hideTip();
    const rows = figure.series.map((line, k) => [line.name, at(k, place)]).filter(([, each]) => !missing(each));
    showTip(clientX, clientY, el("strong", {text: `${figure.x} ${place.toLocaleString("en")}`}),
      el("dl", {}, rows.flatMap(([name, each]) => [el("dt", {text: name}), el("dd", {text: shown(y, each)})])));
  }
  box.addEventListener("pointermove", event => {
    const wanted = frame.across.at(event.clientX - box.getBoundingClientRect().left);
    move(stops.reduce((a, b) => Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a), event.clientX, event.clientY);
  });
  box.addEventListener("pointerleave", () => move(null));
  box.addEventListener("blur", () => move(null));
  box.addEventListener("keydown", event => {
    const walk = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!walk) { if (event.key === "Escape") move(null); return; }
    const i = stops.indexOf(cursor), next = stops[Math.max(0, Math.min(stops.length - 1, i < 0 ? 0 : i + walk))];
    const place = box.getBoundingClientRect();
    move(next, place.left + frame.across(next), place.top + 20);
    event.preventDefault();
  });

  const named = figure.series.length > 1 || figure.series.some(line => line.low);
  return el("div", {class: "chart"}, el("h3", {text: figure.title}), el("p", {class: "says", text: figure.says}), box,
    named ? legend(figure.series.flatMap(line => [
      figure.stacked ? {mark: "dot", name: line.name, fill: `var(--${line.colour})`}
        : {mark: "line", name: line.name + (line.band ? ` (band: ${line.band})` : ""), stroke: `var(--${line.colour})`,
          "stroke-width": 2, "stroke-dasharray": line.dash, fill: "none"}])) : null,
    tabled(figure, stops, at));
}

/** The points of a line, or of steps that keep each value until the next place. */
function trace(points, step) {
  if (!step) return points.map(point => point.map(pixel => pixel.toFixed(1)).join(" "));
  return points.flatMap((point, i) => i ? [`${point[0].toFixed(1)} ${points[i - 1][1].toFixed(1)}`, `${point[0].toFixed(1)} ${point[1].toFixed(1)}`]
    : [`${point[0].toFixed(1)} ${point[1].toFixed(1)}`]);
}

/** The stretches of a line without missing values, as pairs of place and value. */
function runsOf(places, values) {
  const parts = [[]];
  places.forEach((place, i) => {
    if (missing(values[i]) || !Number.isFinite(values[i])) { if (parts[parts.length - 1].length) parts.push([]); }
    else parts[parts.length - 1].push([place, values[i]]);
  });
  return parts.filter(part => part.length);
}

/** The figure as a table, made when it is opened. */
function tabled(figure, places, at) {
  const details = el("details", {class: "tabled"}, el("summary", {text: "As a table"}));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const columns = [figure.x, ...figure.series.map(line => line.name)];
    const rows = places.map(place => [place, ...figure.series.map((_, k) => at(k, place))]);
    details.append(copyCsv(() => [columns, ...rows]),
      grid(figure.title, columns, rows.map(row => row.map((each, i) => i ? shown(figure.y, each) : each))));
  });
  return details;
}

// ---- Choices by gene ----------------------------------------------------------------------------

function ops(run, host) {
  const {bins, genes} = run.ops;
  const most = Math.max(1, ...genes.flatMap(gene => gene.choices.flatMap(choice => choice.shares)));
  for (const gene of genes) {
    host.append(el("table", {}, el("caption", {text: gene.name}), el("tbody", {}, gene.choices.map(choice => {
      const strip = el("canvas", {width: bins.length, height: 1, "aria-hidden": "true"});
      const paint = () => {
        const pen = strip.getContext("2d");
        pen.clearRect(0, 0, bins.length, 1);
        pen.fillStyle = colour("blue");
        choice.shares.forEach((share, i) => { pen.globalAlpha = share / most; pen.fillRect(i, 0, 1, 1); });
      };
      paint();
      plots.add({redraw: paint});
      strip.style.imageRendering = "pixelated";
      strip.addEventListener("pointermove", event => {
        const place = strip.getBoundingClientRect();
        const i = Math.max(0, Math.min(bins.length - 1, Math.floor((event.clientX - place.left) / place.width * bins.length)));
        const which = bins[i][0] === bins[i][1] ? `generation ${bins[i][0]}` : `generations ${bins[i][0]} to ${bins[i][1]}`;
        showTip(event.clientX, event.clientY, `${gene.name}, ${choice.name}, ${which}: ${(choice.shares[i] / 10).toFixed(1)} %`);
      });
      strip.addEventListener("pointerleave", hideTip);
      const [first, last] = [choice.shares[0], choice.shares[bins.length - 1]].map(share => `${Math.round(share / 10)} %`);
      return el("tr", {}, el("th", {scope: "row", title: choice.name, text: choice.name}),
        el("td", {class: "n", text: first}), el("td", {}, strip), el("td", {class: "n", text: last}));
    }))));
  }
}

// ---- Lineage ------------------------------------------------------------------------------------

/** Networks by steps back from one: itself, its parents, theirs, as long as there is room. */
function ancestors(run, key) {
  const found = new Map([[key, 0]]);
  let level = [key], left = 0;
  for (let step = 1; level.length; step++) {
    const next = [...new Set(level.flatMap(each => run.parents[run.first.get(each)]
      .filter(parent => run.first.get(parent) < run.first.get(each))))].filter(parent => !found.has(parent));
    if (step > 2 && found.size + next.length > RELATIVES) { left = next.length; break; }
    next.forEach(parent => found.set(parent, step));
    level = next;
  }
  return {found, left};
}

function lineage(run, host) {
  const draw = key => {
    const {found, left} = ancestors(run, key);
    const who = word(run, key) || run.keys[key];
    if (found.size < 2) {
      host.replaceChildren(el("p", {class: "says", text: `${run.keys[key]} (${who}) has no parents: it was not bred from others.`}));
      return;
    }
    const goal = run.goals[0], born = each => run.generation[run.first.get(each)];
    const columns = [...new Set([...found.keys()].map(born))].sort((a, b) => a - b);
    const wide = Math.max(64, Math.min(150, (host.clientWidth - 60) / columns.length)), row = 38;
    const lists = columns.map(generation => [...found.keys()].filter(each => born(each) === generation));
    const height = Math.max(...lists.map(list => list.length)) * row + 60;
    const places = new Map();
    const children = new Map();
    for (const each of found.keys()) {
      for (const parent of run.parents[run.first.get(each)]) if (found.has(parent)) children.set(parent, [...(children.get(parent) || []), each]);
    }
    // From the last generation back, each network stands level with its children (Sugiyama et al., 1981).
    for (let c = columns.length - 1; c >= 0; c--) {
      const pull = each => {
        const heights = (children.get(each) || []).filter(child => places.has(child)).map(child => places.get(child)[1]);
        return heights.length ? heights.reduce((a, b) => a + b) / heights.length : (height - 40) / 2;
      };
      const pulls = new Map(lists[c].map(each => [each, pull(each)]));
      const sorted = lists[c].sort((a, b) => pulls.get(a) - pulls.get(b));
      const start = Math.min(Math.max(30, sorted.reduce((sum, each) => sum + pulls.get(each), 0) / sorted.length - (sorted.length - 1) * row / 2),
        height - 40 - (sorted.length - 1) * row);
      sorted.forEach((each, i) => places.set(each, [40 + c * wide, Math.max(30, start) + i * row]));
    }
    const values = finite([...found.keys()].map(each => value(run, goal, run.rowOf(each))));
    const sorted = values.sort((a, b) => goal.goal === "max" ? a - b : b - a); // the best last
    const links = [], nodes = [];
    for (const [each] of found) {
      const [x, y] = places.get(each);
      for (const parent of run.parents[run.first.get(each)]) {
        if (!places.has(parent)) continue;
        const [px, py] = places.get(parent), middle = (px + x) / 2;
        links.push(sv("path", {class: "link", d: `M${px} ${py}C${middle} ${py} ${middle} ${y} ${x} ${y}`}));
      }
      const own = value(run, goal, run.rowOf(each));
      const rank = values.length > 1 && !missing(own) ? sorted.lastIndexOf(own) / (sorted.length - 1) : 0;
      const pick = () => run.pin(each);
      const origin = text(run, "origin", run.first.get(each));
      nodes.push(sv("g", {class: "born", tabindex: "0", role: "button", "aria-label":
        `${run.keys[each]}, generation ${born(each)}, ${origin}, ${goal.label} ${shown(goal, own)}`,
        onclick: pick, onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } },
        onpointermove: event => showTip(event.clientX, event.clientY, ...tipOf(run, run.rowOf(each))), onpointerleave: hideTip},
        each === key ? sv("path", {d: MARKS.dot(x, y, 11), fill: "none", stroke: "var(--vermilion)", "stroke-width": 2}) : null,
        sv("path", {d: MARKS[origin.includes("mutation") ? "triangle" : origin.includes("crossover") ? "diamond" : "dot"](x, y, 7), fill: shade(rank), stroke: "var(--bg)"}),
        wide >= 80 || each === key ? sv("text", {x, y: y - 12, "text-anchor": "middle", text: shown(goal, own)}) : null));
    }
    const years = columns.map((generation, c) => sv("text", {x: 40 + c * wide, y: height - 8, "text-anchor": "middle", text: generation}));
    const width = 80 + (columns.length - 1) * wide;
    const focused = host.contains(document.activeElement);
    host.replaceChildren(
      el("p", {class: "says", text: `The ${who === run.keys[key] ? "network" : who} (ringed), its parents, theirs and so on, each in the generation in which it was first tried, with its ${goal.label}; the lighter, the better. `
        + (left ? `Earlier ancestors are left out. ` : "") + "Choose another network in the front, or here."}),
      el("div", {class: "tree", tabindex: "0", role: "group", "aria-label": "Lineage"},
        sv("svg", {width, height, viewBox: `0 0 ${width} ${height}`}, links, nodes, years)),
      legend([{mark: "dot", name: "drawn or given", fill: "var(--soft)"}, {mark: "diamond", name: "crossover", fill: "var(--soft)"},
        {mark: "triangle", name: "mutation", fill: "var(--soft)"}]));
    const table = el("details", {class: "tabled"}, el("summary", {text: "As a table"}));
    const names = ["steps back", "network", "generation", "origin", goal.label, "parents"];
    const rows = [...found].map(([each, step]) => [step, run.keys[each], born(each), text(run, "origin", run.first.get(each)),
      shown(goal, value(run, goal, run.rowOf(each))), run.parents[run.first.get(each)].map(parent => run.keys[parent]).join(" ")]);
    table.append(copyCsv(() => [names, ...rows]), grid("Lineage", names, rows));
    host.append(table);
    if (focused) host.querySelector(".tree").focus();
  };
  run.watchers.push(draw);
  plots.add({redraw: () => run.pinned !== null && draw(run.pinned)});
}

// ---- The table of evaluations -------------------------------------------------------------------

function evaluations(run, host) {
  const told = Object.keys(run.messages).length > 0;
  const several = run.texts.budget.names.length > 1;
  const columns = [
    {name: "generation", of: row => run.generation[row], number: true},
    {name: "index", of: row => run.index[row], number: true},
    {name: "network", of: row => run.keys[run.key[row]], cell: row => keyButton(run, run.key[row])},
    {name: "genome", of: row => text(run, "genome", row), cell: row => el("code", {class: "long", title: text(run, "genome", row), text: text(run, "genome", row)})},
    {name: "origin", of: row => text(run, "origin", row)},
    {name: "status", of: row => text(run, "status", row) + (run.cached[row] ? ", repeat" : "")},
    ...(several ? [{name: "budget", of: row => text(run, "budget", row)}] : []),
    ...run.metrics.map(metric => ({name: metric.label, of: row => value(run, metric, row), number: true,
      cell: row => shown(metric, value(run, metric, row))})),
    ...(told ? [{name: "message", of: row => run.messages[row] || ""}] : []),
  ];
  let page = 0, sorted = null, down = false, rows = [];
  const count = el("output", {});
  const search = el("input", {type: "search", placeholder: "genome, network, origin, message", "aria-label": "Search the evaluations", oninput: refill});
  const statuses = el("select", {onchange: refill}, ["any", ...run.texts.status.names].map(name => el("option", {value: name, text: name.replaceAll("_", " ")})));
  const only = el("input", {type: "checkbox", onchange: refill});
  const back = el("button", {type: "button", text: "Previous", onclick: () => turn(-1)});
  const on = el("button", {type: "button", text: "Next", onclick: () => turn(1)});
  const body = el("tbody", {});
  const heads = columns.map((column, i) => el("th", {scope: "col", class: column.number ? "n" : null},
    el("button", {type: "button", class: "sorter", text: column.name, onclick: () => {
      down = sorted === i ? !down : false;
      sorted = i;
      refill();
    }})));
  const front = new Set(run.front);
  const haystack = new Map();
  const straw = row => {
    if (!haystack.has(row)) {
      haystack.set(row, [run.keys[run.key[row]], text(run, "genome", row), text(run, "origin", row), run.messages[row] || ""].join("\n").toLowerCase());
    }
    return haystack.get(row);
  };

  function refill() {
    const wanted = search.value.trim().toLowerCase();
    rows = [];
    for (let row = 0; row < run.rows; row++) {
      if (statuses.value !== "any" && text(run, "status", row) !== statuses.value) continue;
      if (only.checked && !front.has(row)) continue;
      if (wanted && !straw(row).includes(wanted)) continue;
      rows.push(row);
    }
    if (sorted !== null) {
      const of = columns[sorted].of, sign = down ? -1 : 1;
      rows.sort((a, b) => {
        const [x, y] = [of(a), of(b)];
        if (missing(x) || missing(y)) return missing(x) - missing(y); // missing ones last
        return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      });
    }
    heads.forEach((head, i) => {
      if (i === sorted) head.setAttribute("aria-sort", down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
      head.firstChild.textContent = columns[i].name + (i === sorted ? (down ? " ↓" : " ↑") : "");
    });
    page = 0;
    fill();
  }
  function turn(by) { page += by; fill(); }
  function fill() {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    const some = rows.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren(...some.map(row => el("tr", {class: run.key[row] === run.pinned ? "on" : null},
      columns.map(column => el("td", {class: column.number ? "n" : null}, column.cell ? column.cell(row) : String(column.of(row)))))));
    const range = rows.length ? `${(page * PAGE + 1).toLocaleString("en")} to ${Math.min(rows.length, (page + 1) * PAGE).toLocaleString("en")} of ` : "";
    count.textContent = `${range}${rows.length.toLocaleString("en")}`;
    back.disabled = page === 0;
    on.disabled = page >= pages - 1;
  }

  host.append(
    run.rows < run.of ? el("p", {class: "note", text: `This page has ${run.rows.toLocaleString("en")} of ${run.of.toLocaleString("en")} evaluations: those that matter, and a share of the others. All are in evaluations.csv.`}) : "",
    el("div", {class: "controls"}, el("label", {class: "wide"}, search), el("label", {}, "status", statuses),
      el("label", {}, only, "only the front")),
    el("div", {class: "grid", tabindex: "0", role: "group", "aria-label": "Evaluations"},
      el("table", {}, el("thead", {}, el("tr", {}, heads)), body)),
    el("div", {class: "controls"}, back, on, count, copyCsv(() => [columns.map(column => column.name),
      ...rows.map(row => columns.map(column => column.of(row)))])));
  run.watchers.push(fill);
  refill();
}

// ---- Copying ------------------------------------------------------------------------------------

function csv(rows) {
  const cell = each => {
    const told = missing(each) ? "" : String(each);
    return /[",\n\r]/.test(told) ? `"${told.replaceAll('"', '""')}"` : told;
  };
  return rows.map(row => row.map(cell).join(",")).join("\n") + "\n";
}

function copyCsv(rows) {
  const button = el("button", {type: "button", text: "Copy as CSV", class: "end"});
  button.addEventListener("click", () => copy(csv(rows()), button));
  return button;
}

async function copy(content, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(content);
    button.textContent = "Copied";
  } catch { // a page from a mail may not use the clipboard's own interface
    const area = el("textarea", {"aria-hidden": "true"});
    area.value = content;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not copied";
    area.remove();
    button.focus();
  }
  setTimeout(() => { button.textContent = before; }, 1600);
}

// ---- The page -----------------------------------------------------------------------------------

const kept = { // what a refresh shall leave as it was; a page from a mail may have no storage
  get: name => { try { return sessionStorage.getItem(name); } catch { return null; } },
  set: (name, content) => { try { sessionStorage.setItem(name, content); } catch { /* then not */ } },
};

function theme() {
  const button = document.getElementById("theme");
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  const redraw = () => { label(); for (const each of plots) each.redraw(); };
  const before = kept.get("theme");
  if (before) root.dataset.theme = before;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept.set("theme", root.dataset.theme);
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  label();
}

function refresh() {
  const box = document.querySelector(".refresh");
  if (!DATA.refresh) return;
  box.hidden = false;
  const wanted = box.firstElementChild;
  wanted.checked = kept.get("refresh") !== "no";
  wanted.addEventListener("change", () => kept.set("refresh", wanted.checked ? "yes" : "no"));
  setInterval(() => {
    if (!wanted.checked || document.hidden) return;
    RUNS.forEach((run, i) => { if (run.rows) kept.set(`pinned${i}`, run.keys[run.pinned]); });
    location.reload();
  }, 1000 * DATA.refresh);
}

function navigation() {
  const links = new Map([...document.querySelectorAll("nav a")].map(link => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, {rootMargin: "-20% 0px -70% 0px"});
  for (const id of links.keys()) { const section = document.getElementById(id); if (section) seen.observe(section); }
}

theme();
for (const host of document.querySelectorAll("[data-front]")) {
  const run = RUNS[host.dataset.front];
  const {box, controls} = scatter(run);
  host.querySelector(".pane").replaceChildren(controls, box, frontLegend(run));
  run.watchers.push(key => showDetails(run, host.querySelector(".details"), key));
}
for (const host of document.querySelectorAll("[data-parallel]")) host.append(parallel(RUNS[host.dataset.parallel]));
for (const host of document.querySelectorAll("[data-dynamics]")) host.append(...dynamics(RUNS[host.dataset.dynamics]));
for (const host of document.querySelectorAll("[data-figures]")) {
  const figures = host.dataset.figures === "compared" ? DATA.compared : RUNS[host.dataset.run][host.dataset.figures];
  host.append(...figures.map(chart));
}
for (const host of document.querySelectorAll("[data-ops]")) ops(RUNS[host.dataset.ops], host);
for (const host of document.querySelectorAll("[data-lineage]")) {
  const run = RUNS[host.dataset.lineage];
  if (run.rows) lineage(run, host);
  else host.append(el("p", {class: "note", text: "There are no networks yet."}));
}
for (const host of document.querySelectorAll("[data-evaluations]")) {
  const run = RUNS[host.dataset.evaluations];
  if (run.rows) evaluations(run, host);
  else host.append(el("p", {class: "note", text: "There are none yet."}));
}
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
for (const block of document.querySelectorAll("main .block, main details > .grid")) {
  const table = block.querySelector("table");
  block.append(el("div", {class: "controls"}, copyCsv(() => [...table.rows].map(row =>
    [...row.cells].map(cell => cell.dataset.value === "nan" ? "" : cell.dataset.value ?? cell.textContent)))));
}
for (const row of document.querySelectorAll("tr[data-key]")) {
  const run = RUNS[row.dataset.run], key = run.rows ? run.keys.indexOf(row.dataset.key) : -1;
  if (key < 0) continue;
  const cell = row.firstElementChild;
  cell.replaceChildren(keyButton(run, key, cell.textContent));
  run.watchers.push(pinned => row.classList.toggle("on", pinned === key));
}
RUNS.forEach((run, i) => {
  if (!run.rows) return;
  const before = run.keys.indexOf(kept.get(`pinned${i}`));
  run.pin(before >= 0 && DATA.refresh ? before : run.winner >= 0 ? run.winner : run.key[0]);
});
navigation();
refresh();
})();
