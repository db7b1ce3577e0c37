// The table of evaluations.

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
