// The page.

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
