/** What one head attends to, as arcs over the text: from the chosen token to the tokens before it. */

import { ask, server } from "./api.js";
import { $, announce, el, Job, plural, quote } from "./dom.js";
import { guess } from "./panel.js";
import { share, TokenRow } from "./tokens.js";

const MOST_TOKENS = 256; // the server shows no more
const FAINTEST = 0.08; // weaker arcs of tokens that are not chosen would only be a haze
const SVG = "http://www.w3.org/2000/svg";

let source = null; // the text or ids that are shown, and their model
let shown = null; // {weights, names, row, arcs}
let chosen = 0;

/** Show the attention over the tokens of an answer, with what came before it. */
export function showAttention(answer) {
  const most = Math.min(MOST_TOKENS, answer.model.max_model_len);
  if (answer.model !== server.model) {
    $("model").value = answer.model.id;
    $("model").dispatchEvent(new Event("change"));
  }
  location.hash = "attention";
  $("attention-text").value = answer.text;
  $("attention-note").textContent = "These are the tokens that the model read and wrote, "
    + (answer.ids.length > most ? `the first ${most} of ${answer.ids.length}.` : "with its control tokens.");
  load({ model: answer.model.id, ids: answer.ids.slice(0, most) });
}

const job = new Job($("attention-form"), () => {
  $("attention-note").textContent = "";
  load({ model: server.model.id, text: $("attention-text").value });
});

/** Ask for the weights of the head, and draw them. */
function load(from) {
  return job.run(async (signal) => {
    const head = { layer: $("layer").value - 1, head: $("head").value - 1 };
    const { tokens, weights } = await ask("/inspect/attention", { ...from, ...head }, signal);
    if (from !== source) build(tokens.map((token) => token.text), from.text);
    source = from;
    shown.weights = weights;
    choose(chosen);
  });
}

/** Begin with another text. */
function build(names, text) {
  if (text !== undefined) names = share(names, text);
  const row = new TokenRow("Tokens; choose one to see where it looks", { open: choose, move: choose, flat: true });
  for (const name of names) row.add({ text: name });
  const arcs = document.createElementNS(SVG, "svg");
  arcs.setAttribute("aria-hidden", "true"); // the list below says the same
  $("arcs").replaceChildren(arcs, row.element);
  $("attention-result").hidden = false;
  shown = { names, row, arcs };
  chosen = names.length - 1;
  announce(`Attention of ${plural(names.length, "token")}. Choose a token with the arrow keys.`);
}

/** Choose a token: shade those it looks at, draw its arcs, and list its ten largest weights. */
function choose(index) {
  chosen = index;
  const { names, row, weights } = shown;
  row.select(index);
  row.items.forEach((item, i) => item.style.setProperty("--shade", weights[index][i] ?? 0));
  const largest = [...weights[index].entries()].sort((a, b) => b[1] - a[1]).slice(0, 10).filter(([, weight]) => weight >= 0.001);
  $("looks-title").textContent = `From ${quote(names[index])}, token ${index + 1}, this head looks at`;
  $("looks").replaceChildren(...largest.map(([i, weight]) =>
    guess(quote(names[i]), Math.log(weight), { note: i === index ? "itself" : `token ${i + 1}` })));
  drawArcs();
}

function drawArcs() {
  if (!shown?.weights || $("attention").hidden) return;
  const { arcs, row, weights } = shown;
  const frame = arcs.getBoundingClientRect();
  const spots = row.items.map((item) => {
    // A token that begins with a space can begin on the line above; its word is the widest of its boxes.
    const box = [...item.getClientRects()].reduce((a, b) => (b.width > a.width ? b : a));
    return { x: box.left + box.width / 2 - frame.left, top: box.top - frame.top, bottom: box.bottom - frame.top };
  });
  arcs.replaceChildren();
  const others = $("all-arcs").checked ? weights.map((_, i) => i).filter((i) => i !== chosen) : [];
  for (const i of [...others, chosen]) { // the chosen one last, so it lies on top
    const least = i === chosen ? 0.01 : FAINTEST;
    weights[i].forEach((weight, j) => { if (j < i && weight >= least) arcs.append(arc(spots[i], spots[j], weight, i === chosen)); });
  }
}

/** A curve between two tokens: over a line of text, or from a line to one above it. */
function arc(from, to, weight, strong) {
  const path = document.createElementNS(SVG, "path");
  const level = Math.abs(from.top - to.top) < 4;
  const end = level ? to.top : to.bottom;
  const height = level ? Math.min(34, 8 + Math.abs(from.x - to.x) / 6) : (from.top - end) / 2;
  path.setAttribute("d", `M${from.x},${from.top}C${from.x},${from.top - height} ${to.x},${level ? end - height : end + height} ${to.x},${end}`);
  path.setAttribute("class", strong ? "strong" : "faint");
  path.style.strokeWidth = strong ? 1.2 + 3 * weight : 1;
  path.style.opacity = strong ? 0.35 + 0.65 * weight : 0.1 + 0.5 * weight;
  return path;
}

/** Write the layer and the head beside their sliders. */
function nameHead() {
  for (const name of ["layer", "head"]) {
    const text = `${$(name).value} of ${$(name).max}`;
    $(`${name}-value`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
}

let timer = 0; // who drags a slider passes many heads
for (const name of ["layer", "head"]) {
  $(name).addEventListener("input", () => {
    nameHead();
    clearTimeout(timer);
    timer = setTimeout(() => shown && load(source), 80);
  });
}

document.addEventListener("model", () => {
  $("layer").max = server.model.n_layer;
  $("head").max = server.model.n_head;
  nameHead();
  $("attention-result").hidden = true; // it belongs to the model before
  shown = null;
});

$("all-arcs").addEventListener("change", drawArcs);
new ResizeObserver(drawArcs).observe($("arcs"));
