// Lines and bars.

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
