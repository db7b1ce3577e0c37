// Details of a network.

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
