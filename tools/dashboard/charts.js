/* The charts of the live view: one Chart per card, drawn by uPlot (vendor/).

   uPlot is used in mode 2, in which every curve has its own x values, because runs differ in length and are thinned
   separately. In this mode uPlot leaves the limits of both axes, the tooltip and highlighting to the caller, so they are
   in this file. */

"use strict";

const DASHES = [[], [9, 4], [2, 3], [10, 3, 2, 3]]; // a run keeps its colour and dash; after seven colours the dash changes
const COLORS = 7; // --c0 ... --c6 in style.css
const FAINT_RUNS = 5; // with more runs than this, raw values are not drawn behind the smoothed ones
const TIP_ROWS = 12; // the most runs in a tooltip; if there are more, the nearest to the mouse

/* --- numbers as people read them --- */

const AXES = {
  step: { label: "batch", text: (v) => `batch ${Math.round(v).toLocaleString("en")}` },
  tokens: { label: "tokens", text: (v) => `${short(v)} tokens` },
  elapsed_s: { label: "elapsed time", text: (v) => duration(v) },
};

/** A number with about five digits: 2.3145, 0.0003, 12,345, 1.20e-7. */
function precise(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(2);
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return size >= 0.1 ? value.toPrecision(5) : String(Number(value.toPrecision(4)));
}

/** A count with a unit: 950, 12.3k, 4.56M, 1.2B. */
function short(value, digits = 3) {
  for (const [limit, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= limit) return `${Number((value / (unit === "k" ? 1e3 : limit)).toPrecision(digits))}${unit}`;
  }
  return Number(value.toPrecision(6)).toLocaleString("en");
}

/** Seconds: 4.2 s, 42 s, 3 min 05 s, 2 h 10 min, 3 days 4 h. */
function duration(seconds) {
  if (seconds < 59.5) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} days ${hours % 24} h`;
}

/** Labels of an axis's ticks. All have as many digits as the label that needs most. */
function tickLabels(splits, unit = "") {
  const largest = Math.max(...splits.map(Math.abs));
  const tiny = largest > 0 && largest < 1e-3;
  const power = tiny ? Math.floor(Math.log10(largest) + 1e-9) : 0;
  const [divisor, suffix] = tiny ? [10 ** power, `e${power}`] : [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"], [0, ""]].find(([limit]) => largest >= limit);
  const values = splits.map((v) => v / (suffix === "k" ? 1e3 : divisor || 1));
  let digits = 0;
  while (digits < 6 && values.some((v) => Math.abs(v * 10 ** digits - Math.round(v * 10 ** digits)) > 1e-6 * Math.max(1, Math.abs(v)))) digits++;
  return values.map((v) => (v === 0 ? "0" : v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + suffix) + unit);
}

const COUNTS = Array.from({ length: 48 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3)); // possible gaps between ticks; below, in seconds
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000];

/** Labels of ticks that are `gap` seconds apart. */
function timeLabels(splits, gap) {
  if (gap >= 86400) return splits.map((v) => `${v / 86400} d`);
  if (gap >= 3600) return splits.map((v) => `${v / 3600} h`);
  const largest = Math.max(...splits);
  if (largest >= 3600) return splits.map((v) => `${Math.floor(v / 3600)}:${String(Math.floor(v / 60) % 60).padStart(2, "0")}${gap < 60 ? ":" + String(Math.round(v) % 60).padStart(2, "0") : " h"}`);
  if (gap >= 60) return splits.map((v) => `${v / 60} min`);
  if (largest >= 60) return splits.map((v) => `${Math.floor(v / 60)}:${String(Math.round(v) % 60).padStart(2, "0")} min`);
  return splits.map((v) => `${Number(v.toFixed(2))} s`);
}

/** Ticks of a logarithmic axis: the coarsest set of round numbers that gives at least four. */
function logTicks(min, max) {
  const sets = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9]];
  for (const set of sets) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power++) {
      for (const digit of set) {
        const tick = Number((digit * 10 ** power).toPrecision(6));
        if (tick >= min && tick <= max) ticks.push(tick);
      }
    }
    if (ticks.length >= 4) return ticks.length <= 9 ? ticks : ticks.filter((_, i) => i % Math.ceil(ticks.length / 9) === 0);
  }
  const step = 10 ** Math.floor(Math.log10((max - min) / 2)), ticks = [];
  for (let i = Math.ceil(min / step); i * step <= max; i++) ticks.push(Number((i * step).toPrecision(6)));
  return ticks.length <= 9 ? ticks : ticks.filter((_, i) => i % Math.ceil(ticks.length / 6) === 0);
}

/* --- small helpers --- */

/** An element with properties and children; texts become text nodes, never markup. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A legend's symbol: a short line in a run's colour and dash (null: a plain line), with or without a circle. */
function swatch(run, circle = false) {
  const make = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const svg = make("svg", { width: 26, height: 12, class: `swatch ${run ? `c${run.color}` : "plain"}`, "aria-hidden": "true" });
  svg.append(make("line", { x1: 1, y1: 6, x2: 25, y2: 6, "stroke-width": circle ? 1.5 : 3, "stroke-dasharray": run ? DASHES[run.dash].join(" ") : "" }));
  if (circle) svg.append(make("circle", { cx: 13, cy: 6, r: 3.5, "stroke-width": 2 }));
  return svg;
}

/** The index of the point nearest to `x` whose y is not null, in ascending `xs`; null if `x` is more than `reach` outside. */
function nearest(xs, ys, x, reach) {
  let low = 0, high = xs.length - 1;
  if (high < 0 || x < xs[0] - reach || x > xs[high] + reach) return null;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  const index = Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  for (let step = 0; step < 50; step++) {
    if (ys[index - step] != null) return index - step;
    if (ys[index + step] != null) return index + step;
  }
  return null;
}

/* --- the chart --- */

class Chart {
  /**
   * @param kind what it shows: {id, title, unit, lines: [{name, label, circles}], log, zero, factor, suffix, none}
   * @param parent the element that its card goes to
   * @param onZoom called with [from, to], or null for the whole run
   */
  constructor(kind, parent, onZoom) {
    this.kind = kind;
    this.onZoom = onZoom;
    this.plot = null; // the uPlot object
    this.curves = []; // what is drawn, in the order of uPlot's series
    this.shape = ""; // identifies what is drawn; when it changes, a new uPlot object is made
    this.hovered = false;
    const head = element("div", { className: "card-head" }, element("h2", {}, kind.title), element("span", { className: "aside" }, kind.unit));
    if (kind.lines.length > 1) {
      head.append(element("span", { className: "key" }, swatch(null), kind.lines[0].label, swatch(null, true), kind.lines[1].label));
    }
    this.tip = element("div", { className: "tip", hidden: true });
    this.none = element("p", { className: "none" });
    this.place = element("div", { className: "plot", tabIndex: 0 }, this.none);
    this.place.setAttribute("role", "img");
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    this.place.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    this.card = element("article", { className: "card chart", id: `chart-${kind.id}` }, head, this.place);
    parent.append(this.card);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: Math.max(120, this.place.clientHeight) };
  }

  /** Show these runs. `view` has axis, log, range ([from, to] of x) and theme. */
  draw(runs, view) {
    this.view = view;
    this.log = view.log && this.kind.log;
    this.curves = this.choose(runs);
    const drawn = this.curves.reduce((sum, curve) => sum + curve.y.length, 0);
    this.card.dataset.points = drawn;
    this.none.hidden = drawn > 0;
    this.none.textContent = runs.length ? this.kind.none : "No run is shown.";
    this.place.setAttribute("aria-label", `${this.kind.title}, ${runs.length} runs, against ${AXES[view.axis].label}. Arrow keys read values.`);
    const shape = [view.axis, this.log, view.theme, ...this.curves.map((c) => c.id)].join("\n");
    if (!drawn || shape !== this.shape) {
      this.plot?.destroy();
      this.plot = null;
      this.tip.hidden = true;
      this.shape = shape;
    }
    if (!drawn) return;
    const data = [null, ...this.curves.map((curve) => [curve.x, curve.y])];
    this.plot ??= this.make(data);
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: view.range[0], max: view.range[1] });
      this.plot.setScale("y", this.limits());
    });
  }

  /** The curves of these runs in drawing order, the back layer first. */
  choose(runs) {
    const layers = [[], [], []];
    for (const run of runs) {
      for (const line of this.kind.lines) {
        const smoothed = run.curves[`${line.name}_smooth`];
        const raw = run.curves[line.name];
        if (smoothed?.x.length && raw && runs.length <= FAINT_RUNS) layers[0].push(this.curve(run, line, raw, "faint"));
        const main = smoothed?.x.length ? smoothed : raw;
        if (main?.x.length) layers[line.circles ? 2 : 1].push(this.curve(run, line, main, line.circles ? "circles" : "line"));
      }
    }
    return layers.flat();
  }

  curve(run, line, { x, y }, style) {
    const factor = this.kind.factor ?? 1;
    const convert = (v) => (v == null || (this.log && v <= 0) ? null : v * factor);
    return { id: `${run.name} ${line.name} ${style}`, run, line, style, x, y: this.log || factor !== 1 ? y.map(convert) : y };
  }

  /** The limits of the y axis, around everything that is visible. */
  limits() {
    const [from, to] = this.view.range;
    let min = Infinity, max = -Infinity;
    for (const { x, y } of this.curves) {
      for (let i = 0; i < x.length; i++) {
        if (y[i] == null || x[i] < from || x[i] > to) continue;
        if (y[i] < min) min = y[i];
        if (y[i] > max) max = y[i];
      }
    }
    if (min > max) return this.log ? { min: 1, max: 10 } : { min: 0, max: 1 };
    if (this.log) {
      const room = Math.max((max / min) ** 0.05, 1.02);
      return { min: min / room, max: max * room };
    }
    const room = (max - min || Math.abs(max) || 1) * 0.06;
    return this.kind.zero && min >= 0 ? { min: 0, max: max + (max * 0.06 || 1) } : { min: min - room, max: max + room };
  }

  make(data) {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    const many = new Set(this.curves.map((c) => c.run)).size > TIP_ROWS;
    const axis = { stroke: color("--soft"), font: `12px ${color("--text")}`, labelFont: `12px ${color("--text")}`, labelSize: 16, labelGap: 0, gap: 6, grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false } };
    const time = this.view.axis === "elapsed_s";
    const plot = new uPlot({
      mode: 2,
      ...this.size(),
      padding: [8, 24, 4, 0],
      legend: { show: false },
      scales: { x: { time: false, auto: false, min: 0, max: 1 }, y: { auto: false, min: 1, max: 2, distr: this.log ? 3 : 1 } },
      axes: [
        { ...axis, size: 24, label: AXES[this.view.axis].label, space: 70, incrs: time ? SECONDS : COUNTS, values: (_, splits, __, ___, gap) => (time ? timeLabels(splits, gap) : tickLabels(splits)) },
        { ...axis, size: 62, space: 34, filter: (_, splits) => splits, values: (_, splits) => tickLabels(splits, this.kind.suffix), ...(this.log && { splits: (_, __, min, max) => logTicks(min, max) }) },
      ],
      series: [null, ...this.curves.map((curve) => this.series(curve, color, many))],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: 5 },
        sync: { key: "x", scales: ["x", null], setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        dataIdx: (u, i) => this.indexUnderCursor(u, i),
        points: { show: (_, i) => (many || this.curves[i - 1].style === "faint" ? null : element("div")), size: () => 8, fill: (_, i) => color(`--c${this.curves[i - 1].run.color}`), width: () => 0 },
        bind: { dblclick: () => () => this.onZoom(null) },
      },
      hooks: {
        setCursor: [(u) => this.showTip(u)],
        setSelect: [(u) => {
          if (u.select.width < 5) return;
          const range = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.onZoom(range);
        }],
      },
    }, data, this.place);
    plot.over.append(this.tip);
    plot.over.addEventListener("mouseenter", () => { this.hovered = true; });
    plot.over.addEventListener("mouseleave", () => { this.hovered = false; this.tip.hidden = true; });
    return plot;
  }

  series({ run, style, y }, color, many) {
    const stroke = color(`--c${run.color}`);
    const thin = many ? 1.2 : 2;
    const facets = [{ scale: "x", auto: false, sorted: 1 }, { scale: "y", auto: false }];
    const circles = (style === "circles" && y.length <= 200) || y.length <= 20;
    const alone = (u, i) => u.data[i][1].flatMap((v, at, all) => (v != null && (circles || (all[at - 1] == null && all[at + 1] == null)) ? [at] : [])); // a line needs two points: others are drawn as dots
    return {
      facets, stroke, pxAlign: 0,
      alpha: style === "faint" ? 0.28 : 1,
      width: style === "line" ? thin : style === "faint" ? 1 : 1.4,
      dash: style === "line" ? DASHES[run.dash] : [],
      paths: uPlot.paths.linear(),
      points: { show: false, filter: alone, size: many ? 3 : 7, width: many ? 1 : 1.8, stroke, fill: style === "circles" && !many ? color("--card") : stroke },
    };
  }

  /** Highlight the run of this name; null: no run. */
  highlight(name) {
    if (!this.plot) return;
    this.curves.forEach(({ run, style }, i) => {
      const dim = name != null && run.name !== name;
      this.plot.series[i + 1].alpha = dim ? 0.08 : style === "faint" ? 0.28 : 1;
    });
    this.plot.redraw(false);
  }

  indexUnderCursor(u, i) {
    const [xs, ys] = u.data[i];
    const [from, to] = this.view.range;
    return nearest(xs, ys, u.posToVal(u.cursor.left, "x"), (to - from) * 0.02);
  }

  /** Fill and place the tooltip: one row per run, with a value for each kind of line. */
  showTip(u) {
    const { left, top, idxs } = u.cursor;
    const focused = document.activeElement === this.place;
    this.tip.hidden = !(this.hovered || focused) || left == null || left < 0;
    if (this.tip.hidden) return;
    const rows = new Map();
    this.curves.forEach((curve, i) => {
      const index = idxs[i + 1];
      if (curve.style === "faint" || index == null) return;
      const row = rows.get(curve.run) ?? { run: curve.run, values: {}, distance: Infinity };
      row.values[curve.line.name] = curve.y[index];
      row.distance = Math.min(row.distance, Math.abs(u.valToPos(curve.y[index], "y") - top));
      rows.set(curve.run, row);
    });
    const shown = [...rows.values()].sort((a, b) => a.distance - b.distance).slice(0, TIP_ROWS);
    const first = this.kind.lines[0].name;
    shown.sort((a, b) => (b.values[first] ?? -Infinity) - (a.values[first] ?? -Infinity));
    const table = element("table", {}, element("caption", {}, AXES[this.view.axis].text(u.posToVal(left, "x"))));
    if (this.kind.lines.length > 1) {
      table.append(element("tr", {}, element("th"), element("th"), ...this.kind.lines.map((line) => element("th", {}, line.label))));
    }
    for (const { run, values } of shown) {
      const texts = this.kind.lines.map(({ name }) => (values[name] == null ? "–" : precise(values[name]) + (this.kind.suffix ?? "")));
      table.append(element("tr", {}, element("td", {}, swatch(run)), element("td", {}, run.name), ...texts.map((text) => element("td", {}, text))));
    }
    this.tip.replaceChildren(table);
    if (rows.size > shown.length) this.tip.append(element("div", { className: "more" }, `and ${rows.size - shown.length} more`));
    const right = left > u.over.clientWidth / 2;
    this.tip.style.left = right ? "auto" : `${left + 14}px`;
    this.tip.style.right = right ? `${u.over.clientWidth - left + 14}px` : "auto";
    this.tip.hidden = shown.length === 0;
  }

  /** Arrow keys move the crosshair, for those without a mouse. */
  onKey(event) {
    if (!this.plot) return;
    const width = this.plot.over.clientWidth;
    const at = this.plot.cursor.left >= 0 ? this.plot.cursor.left : width / 2;
    const moves = { ArrowLeft: at - width / 100, ArrowRight: at + width / 100, Home: 0, End: width - 1, Escape: -10 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const left = event.key === "Escape" ? -10 : Math.min(width - 1, Math.max(0, moves[event.key]));
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 }, true, true);
  }
}
