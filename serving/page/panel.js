/** The panel of a token: how likely it was, and the ten likeliest tokens at its place. */

import { $, button, el, percent, quote } from "./dom.js";

export const ENDS = /^<\|(endoftext|im_end)\|>$/; // the names of tokens that end a text or a turn

let shown = 0; // counts calls, so that a late answer is not shown for another token
let back = () => {}; // returns the focus to the token

/** A row of a list: a bar, a text, a number. With `choose` it is a button. */
export function guess(text, logprob, { note = "", choose = null } = {}) {
  const row = choose ? button("", choose) : el("div");
  const bar = row.appendChild(el("span", { class: "bar", "aria-hidden": "true" }));
  bar.style.width = `${100 * Math.exp(logprob)}%`;
  row.append(el("span", { class: "what" }, text), el("em", {}, note), el("span", { class: "number" }, percent(logprob)));
  return el("li", {}, row);
}

/**
 * Open the panel for `token` (text, id, logprob), which is number `index` of `row`. `details` is what /inspect/tokens says
 * about it (and `cut`), or a promise of that. With `choose(token)`, each of the likeliest is a button.
 */
export async function openPanel({ token, index, row, details, choose }) {
  const turn = ++shown;
  row.select(index);
  back = () => row.focus(index);
  $("panel").hidden = false;
  $("panel-title").textContent = `${quote(token.text)} ${token.logprob == null ? "" : percent(token.logprob)}`;
  for (const part of ["panel-facts", "panel-guesses", "panel-hint"]) $(part).replaceChildren();
  row.items[index].scrollIntoView({ block: "nearest" });
  $("panel-title").focus({ preventScroll: true });
  try {
    const said = await details;
    if (turn === shown) fill(said, choose);
  } catch (error) {
    if (turn === shown) $("panel-hint").textContent = error.message;
  }
}

function fill({ id, logprob, rank, top, cut }, choose) {
  if (logprob == null) {
    $("panel-hint").textContent = "The first token has no probability, since nothing comes before it.";
    return;
  }
  $("panel-facts").textContent = `Probability ${(100 * Math.exp(logprob)).toFixed(4)} %, loss ${(-logprob).toFixed(4)} nats, `
    + `place ${rank.toLocaleString("en")}, token id ${id}.`;
  $("panel-guesses").replaceChildren(...top.map((other) => guess(
    ENDS.test(other.text) ? `${other.text} (end)` : quote(other.text), other.logprob,
    other.id === id ? { note: "this one" } : { choose: choose && (() => { closePanel(); choose(other); }) },
  )));
  $("panel-hint").textContent = (choose ? "Choose another token to go on from it. " : "")
    + (cut ? "The text is longer than the context, so these numbers differ a little from those at writing. " : "")
    + "These are the model’s own probabilities, before temperature, cuts and penalties.";
}

export function closePanel() {
  $("panel").hidden = true;
  shown += 1;
}

function leave() {
  closePanel();
  back();
}

$("panel-close").addEventListener("click", leave);
$("panel").addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
