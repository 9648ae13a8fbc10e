/* The live view: asks tools/dashboard.py what is new, keeps the table, and hands the curves to the charts (charts.js). */

"use strict";

const POLL_MS = 2000;
const READING_MS = 500; // instead, while the files are read for the first time
const MANY_OPTIONS = 6; // with more runs than this, the table of configs has a row per run instead of a column

const CHARTS = [
  { id: "loss", title: "Loss", unit: "nats per token", log: true, lines: [{ name: "loss", label: "training" }, { name: "val_loss", label: "validation", circles: true }], none: "No batch is done yet." },
  { id: "bpb", title: "Bits per byte", unit: "validation", log: true, lines: [{ name: "bpb", circles: true }], none: "No evaluation yet." },
  { id: "tasks", title: "Built-in tasks", unit: "mean share of right answers, %", factor: 100, lines: [{ name: "tasks", circles: true }], none: "No task was asked: training.evaluate_tasks." },
  { id: "tokens_per_s", title: "Throughput", unit: "tokens per second", zero: true, lines: [{ name: "tokens_per_s" }], none: "Not in these files." },
  { id: "grad_norm", title: "Gradient norm", unit: "before clipping", log: true, lines: [{ name: "grad_norm" }], none: "Not in these files." },
  { id: "lr", title: "Learning rate", unit: "", zero: true, lines: [{ name: "lr" }], none: "Not in these files." },
  { id: "peak_memory_bytes", title: "Peak memory", unit: "GB", zero: true, factor: 1e-9, lines: [{ name: "peak_memory_bytes" }], none: "Not measured on the device of these runs." },
  { id: "mfu", title: "MFU", unit: "of the hardware's peak", zero: true, factor: 100, suffix: "%", lines: [{ name: "mfu" }], none: "The peak of these runs' hardware is not known." },
];

const COLUMNS = [
  { key: "name", label: "run", left: true },
  { key: "done", label: "progress", text: state, left: true },
  { key: "step", label: "batch", text: (run) => whole(run.step) },
  { key: "tokens", label: "tokens", text: (run) => short(run.tokens) },
  { key: "loss", label: "loss", text: (run) => run.loss.toFixed(4) },
  { key: "best_val_loss", label: "best val loss", text: (run) => run.best_val_loss.toFixed(4), lowest: (run) => run.data && `${run.data} ${run.tokenizer}` },
  { key: "bpb", label: "bpb", text: (run) => run.bpb.toFixed(4), lowest: (run) => run.data },
  { key: "tokens_per_s", label: "tokens/s", text: (run) => whole(run.tokens_per_s) },
  { key: "elapsed_s", label: "elapsed", text: (run) => duration(run.elapsed_s) },
  { key: "data", label: "data", text: (run) => run.data, left: true },
];

/** Whether a run trains, how far it is, and the time that is left. */
function state(run) {
  if (run.problem) return run.problem;
  const share = run.done == null ? "" : run.done === 1 ? "done" : `${Math.floor(run.done * 100)} %`;
  const left = run.left_s == null ? "" : `${duration(run.left_s)} left`;
  const word = run.running ? "running" : share && share !== "done" ? "stopped" : "";
  return [word, share, left].filter(Boolean).join(", ");
}

const $ = (id) => document.getElementById(id);
const whole = (value) => Math.round(value).toLocaleString("en");

/* --- state --- */

const view = { axis: "step", log: false, window: 0, zoom: null, range: [0, 1], theme: "" };
const known = new Map(); // run name -> what the page remembers of it: colour, dash, whether it is shown, its curves and its row
const groups = new Map(); // runs that repeat one config with other seeds share a colour: key -> how many, and the colour
let runs = []; // in the order of the table; each is also in `known`
let instance = null; // the server's; another one after a restart
let sorted = { key: null, down: false };
let samplesOf = { key: "", rows: [], pinned: null }; // pinned: the step that someone chose to look at
let configKey = "";

const charts = CHARTS.map((kind) => new Chart(kind, $(["loss", "bpb"].includes(kind.id) ? "charts-first" : "charts-more"), zoomTo));
const shownRuns = () => runs.filter((run) => run.shown);

/* --- asking --- */

const tags = new Map(); // url -> ETag of its last answer

/** The answer to a GET, or null if it has not changed since last time. Only a URL that is asked repeatedly keeps its ETag. */
async function ask(url, keepTag = false) {
  const headers = keepTag && tags.has(url) ? { "If-None-Match": tags.get(url) } : {};
  const answer = await fetch(url, { headers, cache: "no-store" });
  if (answer.status === 304) return null;
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  if (keepTag) tags.set(url, answer.headers.get("ETag"));
  return answer.json();
}

let refreshing = null, again = false;

/** Bring the page up to date. Calls during a refresh start one more round after it, never two at the same time. */
function refresh() {
  again = true;
  refreshing ??= (async () => {
    while (again) {
      again = false;
      await round();
    }
  })().finally(() => { refreshing = null; });
  return refreshing;
}

async function round() {
  const overview = await ask("/api/runs", true);
  if (overview) takeOverview(overview);
  await Promise.all([...shownRuns().map(askCurves), askSamples(), askConfig()]);
  drawCharts();
}

/** Fetch a run's curves if it has new rows or the view has changed. */
async function askCurves(run) {
  const width = Math.ceil(charts[0].size().width * 1.5 / 200) * 200;
  const points = Math.round(Math.min(2000, width, Math.max(200, 40000 / shownRuns().length)));
  let query = `run=${run.id}&x=${view.axis}&points=${points}&window=${view.window}&raw=${shownRuns().length <= FAINT_RUNS ? 1 : 0}`;
  if (view.zoom) query += `&from=${view.zoom[0]}&to=${view.zoom[1]}`;
  const key = `${instance} ${run.version} ${query}`;
  if (run.curvesKey === key) return;
  const axis = view.axis;
  const answer = await ask(`/api/curves?${query}`);
  if (answer.gone) return;
  Object.assign(run, { curves: answer.curves, curvesKey: key, curvesAxis: axis });
}

let timer = 0;

async function poll() {
  clearTimeout(timer);
  const began = performance.now();
  let wait = POLL_MS;
  if (!document.hidden) {
    try {
      await refresh();
      wait = showStatus() ? READING_MS : Math.max(POLL_MS, 4 * (performance.now() - began)); // leave the machine to the training
    } catch (error) {
      const gone = error instanceof TypeError; // fetch throws this if no server answers
      status("lost", gone ? "tools/dashboard.py does not answer; trying again" : error.message);
      if (!gone) console.error(error);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(poll, wait);
}

/* --- the overview: status and table --- */

let overviewNow = null;

function takeOverview(overview) {
  overviewNow = overview;
  if (overview.instance !== instance) { // the server was restarted, and may number the runs differently
    instance = overview.instance;
    for (const run of known.values()) run.curvesKey = "";
  }
  runs = overview.runs.map((summary) => {
    const run = known.get(summary.name) ?? newRun(summary.name);
    Object.assign(run, summary);
    setStyle(run);
    return run;
  });
  const first = new Map(runs.map((run, i) => [run.group, i]).reverse());
  runs.sort((a, b) => first.get(a.group) - first.get(b.group)); // the seeds of a config are neighbours
  $("folder").textContent = overview.folder;
  const empty = runs.length === 0;
  $("empty").hidden = !empty;
  $("main").hidden = empty;
  if (empty) {
    $("empty-title").textContent = overview.problem ? `${overview.folder}: ${overview.problem}` : `No runs in ${overview.folder} yet`;
    $("empty-text").textContent = "A run appears here by itself as soon as it has done its first batch. To start one:";
  }
  drawTable();
}

function newRun(name) {
  const run = { name, shown: true, curves: {}, curvesKey: "", group: null };
  known.set(name, run);
  return run;
}

/** A run takes the next colour, and after all colours the next dash. If it repeats a config with another seed, only the dash. */
function setStyle(run) {
  const key = run.repeats ?? `run ${run.name}`;
  if (run.group === key) return;
  const old = groups.get(run.group);
  if (old && !run.repeats) return; // its config is gone
  if (old?.count === 1 && !groups.has(key)) { // its config has come or changed: the run keeps its colour
    groups.delete(run.group);
    groups.set(key, old);
    run.group = key;
    return;
  }
  const group = groups.get(key) ?? { count: 0, number: groups.size };
  groups.set(key, group);
  run.group = key;
  run.color = group.number % COLORS;
  run.dash = (Math.floor(group.number / COLORS) + group.count++) % DASHES.length;
  run.row = null; // made again, with the new colour
}

/** Show the status; returns true while files are still being read. */
function showStatus() {
  if (!overviewNow) return false;
  if (overviewNow.read != null) {
    status("wait", `Reading the files: ${Math.round(overviewNow.read * 100)} %`);
    return true;
  }
  if (overviewNow.problem && runs.length) {
    status("lost", `${overviewNow.folder}: ${overviewNow.problem}`);
    return false;
  }
  const running = runs.filter((run) => run.running).length;
  status("live", `Live, ${running ? `${running} running` : "none running"}, ${new Date().toLocaleTimeString()}`);
  return false;
}

function status(state, text) {
  $("status").dataset.state = state;
  $("status-text").textContent = text;
}

function makeHead() {
  for (const column of COLUMNS) {
    const cell = element("th", { scope: "col", className: column.left ? "left" : "" });
    if (column.key === "name") {
      const all = element("input", { type: "checkbox", id: "all", checked: true, title: "Show or hide all runs listed here" });
      all.setAttribute("aria-label", "Show all runs");
      all.addEventListener("change", () => {
        for (const run of runs) if (!run.row.hidden) run.shown = all.checked;
        drawTable();
        changed();
      });
      cell.append(all, " ");
    }
    if (column.label) {
      const button = element("button", { type: "button", title: "Sort" }, column.label);
      button.addEventListener("click", () => {
        sorted = sorted.key !== column.key ? { key: column.key, down: false } : sorted.down ? { key: null, down: false } : { key: column.key, down: true };
        drawTable();
      });
      cell.append(button);
    }
    $("runs-head").append(cell);
    column.head = cell;
  }
}

function makeRow(run) {
  run.box = element("input", { type: "checkbox" });
  run.box.addEventListener("change", () => {
    run.shown = run.box.checked;
    drawTable();
    changed();
  });
  const label = element("label", {}, run.box, swatch(run), element("span", { className: "name", title: run.name }, run.name));
  run.row = element("tr", {}, ...COLUMNS.map((column) => element("td", { className: column.left ? "left" : "" }, column.key === "name" ? label : "")));
  run.row.addEventListener("mouseenter", () => charts.forEach((chart) => chart.highlight(run.name)));
  run.row.addEventListener("mouseleave", () => charts.forEach((chart) => chart.highlight(null)));
}

/** Write the table's cells. Rows stay the same elements, so that the keyboard's focus is kept. */
function drawTable() {
  const find = $("find").value.trim().toLowerCase();
  for (const run of runs) {
    if (!run.row) makeRow(run);
    run.box.checked = run.shown;
    run.row.className = run.shown ? "" : "off";
    run.row.hidden = !run.name.toLowerCase().includes(find);
    COLUMNS.forEach((column, i) => {
      const cell = run.row.cells[i];
      if (column.key === "name") return;
      const text = run[column.key] == null && column.text !== state ? "–" : column.text(run);
      if (cell.dataset.text !== text) {
        cell.dataset.text = text;
        cell.replaceChildren(text);
        if (column.key === "done") {
          cell.classList.toggle("running", run.running && !run.problem);
          cell.classList.toggle("problem", Boolean(run.problem));
          if (run.running && !run.problem) cell.prepend(element("span", { className: "dot" }));
        }
      }
      if (column.lowest) cell.classList.toggle("best", isLowest(run, column));
    });
  }
  const rows = sorted.key ? inOrder(runs).map((run) => run.row) : withMeans();
  const body = $("runs-body");
  if (rows.length !== body.children.length || rows.some((row, i) => body.children[i] !== row)) {
    const focused = document.activeElement;
    body.replaceChildren(...rows);
    if (body.contains(focused)) focused.focus({ preventScroll: true });
  }
  for (const column of COLUMNS) {
    column.head.setAttribute("aria-sort", sorted.key !== column.key ? "none" : sorted.down ? "descending" : "ascending");
  }
  const shown = shownRuns().length;
  $("runs-count").textContent = shown === runs.length ? `${runs.length}` : `${shown} of ${runs.length} shown`;
  $("find-label").hidden = runs.length < 8 && !find;
  const listed = runs.filter((run) => !run.row.hidden);
  $("all").checked = listed.every((run) => run.shown);
  $("all").indeterminate = !$("all").checked && listed.some((run) => run.shown);
}

/** Whether a run has the lowest value of all shown runs that it can be compared with: those with the same data. */
function isLowest(run, { key, lowest }) {
  const others = shownRuns().filter((other) => lowest(other) === lowest(run) && other[key] != null);
  return Boolean(lowest(run)) && run.shown && others.length > 1 && others.every((other) => run[key] <= other[key]);
}

/** The rows of all runs; below the seeds of one config, a row with their means. */
function withMeans() {
  return runs.flatMap((run, i) => {
    if (runs[i + 1]?.group === run.group) return [run.row];
    const seeds = runs.filter((other) => other.group === run.group && other.shown && !other.row.hidden);
    return seeds.length > 1 ? [run.row, meanRow(seeds)] : [run.row];
  });
}

function meanRow(seeds) {
  const text = ({ key, lowest }) => {
    const values = seeds.map((run) => run[key]).filter((value) => value != null);
    if (!lowest || values.length < 2) return "";
    const mean = values.reduce((a, b) => a + b) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    return `${mean.toFixed(4)} ± ${deviation.toFixed(4)}`;
  };
  const group = groups.get(seeds[0].group);
  group.row ??= element("tr", { className: "mean" }, ...COLUMNS.map((column) => element("td", { className: column.left ? "left" : "" })));
  COLUMNS.forEach((column, i) => {
    group.row.cells[i].textContent = column.key === "name" ? `mean of ${seeds.length} seeds ± standard deviation` : text(column);
  });
  return group.row;
}

function inOrder(list) {
  if (!sorted.key) return list;
  const sign = sorted.down ? -1 : 1;
  return [...list].sort((a, b) => {
    const [x, y] = [a[sorted.key], b[sorted.key]];
    if (x == null || y == null) return (x == null) - (y == null); // runs without a value come last
    return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  });
}

/* --- charts --- */

function drawCharts() {
  const drawn = shownRuns().filter((run) => run.curvesAxis === view.axis);
  view.range = view.zoom ?? wholeRange(drawn);
  for (const chart of charts) chart.draw(drawn, view);
  $("reset").disabled = !view.zoom;
}

/** The range from the first to the last x of all runs that are drawn. */
function wholeRange(drawn) {
  const ends = drawn.flatMap(({ curves }) => Object.values(curves).filter((c) => c.x.length).flatMap((c) => [c.x[0], c.x.at(-1)]));
  if (!ends.length) return [0, 1];
  const [from, to] = [Math.min(...ends), Math.max(...ends)];
  if (from === to) return [from - 1, to + 1];
  return from > 0 && from < to / 20 ? [0, to] : [from, to];
}

function zoomTo(range) {
  view.zoom = range;
  changed();
}

/** After a user's choice: draw the curves that are here already, then ask for the missing ones. */
function changed() {
  drawCharts();
  poll();
}

/* --- samples --- */

async function askSamples() {
  const having = runs.filter((run) => run.newest_samples != null);
  const select = $("samples-run");
  const names = having.map((run) => run.name);
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    const chosen = select.dataset.chosen;
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : (having.find((run) => run.running) ?? having.at(-1))?.name ?? "";
  }
  select.hidden = names.length === 0;
  const run = having.find(({ name }) => name === select.value);
  const key = run ? `${instance} ${run.id} ${run.newest_samples}` : "none";
  if (key === samplesOf.key) return;
  const answer = run ? await ask(`/api/samples?run=${run.id}`) : { rows: [] };
  if (answer.gone) return;
  samplesOf = { ...samplesOf, key, rows: answer.rows };
  drawSamples();
}

function drawSamples() {
  const { rows, pinned } = samplesOf;
  const place = rows.findIndex((row) => row.step === pinned);
  const at = place >= 0 ? place : rows.length - 1;
  const range = $("samples-range");
  Object.assign(range, { max: Math.max(0, rows.length - 1), value: Math.max(0, at) });
  $("samples-range-label").hidden = rows.length === 0;
  range.hidden = rows.length < 2;
  $("samples-step").textContent = rows.length ? `batch ${whole(rows[at].step)}${at === rows.length - 1 ? ", the latest" : ""}` : "";
  if (!rows.length) {
    $("samples-body").replaceChildren(element("div", { className: "quiet" }, "No run here has written samples yet."));
    return;
  }
  $("samples-body").replaceChildren(...rows[at].samples.map(({ prompt, text }) => {
    const rest = text.startsWith(prompt) ? text.slice(prompt.length) : text;
    return element("p", {}, element("span", { className: "prompt" }, prompt), rest);
  }));
}

/* --- configs --- */

async function askConfig() {
  const having = shownRuns().filter((run) => run.config);
  const key = [instance, shownRuns().length, ...having.map((run) => `${run.id}:${run.config}`)].join(" ");
  if (key === configKey) return;
  configKey = key;
  const answer = having.length > 1 ? await ask(`/api/config?runs=${having.map((run) => run.id).join(",")}`) : { runs: [], options: [] };
  const columns = answer.runs.map((id) => having.find((run) => run.id === id));
  const missing = shownRuns().length - having.length;
  $("config-aside").textContent = missing ? `${missing} shown ${missing === 1 ? "run has" : "runs have"} no config file` : "";
  const table = $("config-table");
  table.replaceChildren();
  if (!answer.options.length) {
    const why = having.length > 1 ? "The configs of the shown runs are the same." : "Show two or more runs with a config to compare them.";
    table.append(element("tbody", {}, element("tr", {}, element("td", { className: "left quiet" }, why))));
    return;
  }
  const header = (run) => element("span", { title: run.name }, swatch(run), run.name);
  const cell = (value) => element("td", { title: value ?? "not in this config" }, value ?? "–");
  const tops = columns.length > MANY_OPTIONS ? answer.options.map((option) => option.name) : columns.map(header);
  const lines = columns.length > MANY_OPTIONS
    ? columns.map((run, i) => [header(run), answer.options.map((option) => option.values[i])])
    : answer.options.map((option) => [option.name, option.values]);
  table.append(
    element("thead", {}, element("tr", {}, element("th", { className: "left" }), ...tops.map((top) => element("th", { scope: "col" }, top)))),
    element("tbody", {}, ...lines.map(([name, values]) => element("tr", {}, element("th", { scope: "row", className: "left" }, name), ...values.map(cell)))),
  );
}

/* --- controls --- */

function readControls() {
  view.axis = document.querySelector("input[name=axis]:checked").value;
  view.log = document.querySelector("input[name=scale]:checked").value === "log";
  view.window = Number($("window").value);
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  view.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => {
    view.theme = dark.matches ? "dark" : "light";
    drawCharts();
  });
  makeHead();
  readControls();
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("change", () => {
    const axis = view.axis;
    readControls();
    if (axis !== view.axis) {
      view.zoom = null;
      poll(); // the curves that are here belong to the other axis
    } else {
      changed();
    }
  });
  $("reset").addEventListener("click", () => zoomTo(null));
  $("find").addEventListener("input", drawTable);
  $("samples-run").addEventListener("change", () => {
    $("samples-run").dataset.chosen = $("samples-run").value;
    samplesOf = { key: "", rows: [], pinned: null };
    poll();
  });
  $("samples-range").addEventListener("input", () => {
    const at = Number($("samples-range").value);
    samplesOf.pinned = at === samplesOf.rows.length - 1 ? null : samplesOf.rows[at].step; // null: follow the latest
    drawSamples();
  });
  document.addEventListener("visibilitychange", poll);
  poll();
}

start();
