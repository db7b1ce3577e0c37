// The front.

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
