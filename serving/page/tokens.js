/** Text as tokens that one can look into: their colours, and the keys that move between them. */

import { el, percent, quote, visible } from "./dom.js";

const BROKEN = "\uFFFD"; // in the name of a token that holds only a part of a character
const CONTROL = /^<\|.*\|>$/;
const STRONGEST = Math.log(100); // nats: a token of 1 % or less has the full colour

/** The part of `text` that each token wrote. Of tokens that share a character, the last one gets it. */
export function share(names, text) {
  let at = 0;
  return names.map((name, i) => {
    const next = names[i + 1];
    let part = name;
    if (name.includes(BROKEN)) {
      const end = next === undefined ? text.length : text.indexOf(next, at);
      part = next?.includes(BROKEN) ? "" : text.slice(at, end < 0 ? text.length : end);
    }
    if (text.startsWith(part, at)) at += part.length; // control tokens are not in the text
    return part;
  });
}

/**
 * A row of tokens. It is a listbox, so the Tab key stops only once in it: arrows move, Enter opens.
 * `open(index)` is called for a click and for Enter, `move(index)` when the arrows come to a token. `flat`: without line breaks.
 */
export class TokenRow {
  constructor(label, { open, move = () => {}, flat = false }) {
    Object.assign(this, { open, move, flat, items: [] });
    this.element = el("div", {
      class: flat ? "tokens flat" : "tokens", role: "listbox", "aria-label": label, "aria-orientation": "horizontal",
      onclick: (event) => this.#click(event), onkeydown: (event) => this.#key(event),
    });
    this.element.hidden = true; // a listbox must not be empty
  }

  add({ text, logprob }) {
    const label = quote(text) + (logprob == null ? "" : `, ${percent(logprob)}`);
    const kind = text === "" ? "part" : CONTROL.test(text) ? "control" : text.startsWith("\n") && !this.flat ? "newline" : "";
    const item = el("span", {
      class: `token ${kind}`, role: "option", tabindex: this.items.length ? -1 : 0, title: label, "aria-label": label,
      "aria-selected": false, "data-logprob": logprob,
    }, this.flat ? visible(text) : text);
    if (logprob != null) item.style.setProperty("--shade", Math.min(1, -logprob / STRONGEST));
    this.items.push(item);
    this.element.append(item);
    this.element.hidden = false;
  }

  /** Remove the tokens from `length` on. */
  cut(length) {
    for (const item of this.items.splice(length)) item.remove();
    this.element.hidden = !length;
    if (length) this.#setStop(0);
  }

  select(index) {
    this.items.forEach((item, i) => item.setAttribute("aria-selected", i === index));
    this.#setStop(index);
  }

  focus(index) {
    this.#setStop(index);
    this.items[index]?.focus();
  }

  /** Choose the token that the Tab key comes to. */
  #setStop(index) {
    this.items.forEach((item, i) => { item.tabIndex = i === index ? 0 : -1; });
  }

  #click(event) {
    const index = this.items.indexOf(event.target);
    if (index < 0 || !getSelection().isCollapsed) return; // somebody marks text to copy it
    this.focus(index);
    this.open(index);
  }

  #key(event) {
    const last = this.items.length - 1;
    const index = this.items.indexOf(event.target);
    const to = { ArrowLeft: Math.max(0, index - 1), ArrowRight: Math.min(last, index + 1), Home: 0, End: last }[event.key];
    if (to !== undefined) {
      this.focus(to);
      this.move(to);
    } else if (event.key === "Enter" || event.key === " ") this.open(index);
    else return;
    event.preventDefault();
  }
}
