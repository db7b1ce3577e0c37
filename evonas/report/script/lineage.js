// Lineage.

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
