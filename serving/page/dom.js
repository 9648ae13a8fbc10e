/** Small helpers: make elements, write numbers, announce, copy, save, start and stop. */

export const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick: function`) and children. Empty children are left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter(Boolean));
  return element;
}

export const button = (name, onclick) => el("button", { type: "button", onclick }, name);
export const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A token's text in quotation marks; spaces without a shape get one. */
export const quote = (text) => `“${visible(text) || "part of a character"}”`;
export const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");

/** A probability for a glance; the panel has more digits. */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  return value < 0.0001 ? "below 0.0001 %" : `${value < 1 ? Number(value.toPrecision(2)) : value.toFixed(1)} %`;
}

/** Let a screen reader say something when it has finished what it says now. */
export const announce = (text) => { $("status").textContent = text; };

/** Copy a text. A browser has a clipboard only on https and for this machine; elsewhere the old way works. */
export async function copy(text, from) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text).catch(() => {});
  else {
    const area = document.body.appendChild(el("textarea", { class: "sr-only" }, text));
    area.select();
    document.execCommand("copy");
    area.remove();
    from.focus();
  }
  from.textContent = "Copied";
  announce("Copied");
  setTimeout(() => { from.textContent = "Copy"; }, 1500);
}

/** Let the browser save a text as a file. */
export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text]));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** What a form starts. While it runs, the form's main button is named Stop, and stops it. */
export class Job {
  #abort = null;
  #done = Promise.resolve();
  #newest = 0;

  constructor(form, start) {
    this.button = form.querySelector(".main");
    this.error = form.querySelector(".error");
    this.name = this.button.textContent;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.runs) this.stop();
      else start();
    });
  }

  get runs() {
    return this.#abort !== null;
  }

  stop() {
    this.#abort?.abort();
    return this.#done;
  }

  /** Stop what runs, then run `task(signal)` and show what goes wrong. */
  async run(task) {
    const number = ++this.#newest;
    await this.stop();
    if (number !== this.#newest) return; // somebody pressed twice
    const { signal } = this.#abort = new AbortController();
    this.button.textContent = "Stop";
    this.error.textContent = "";
    this.#done = task(signal).catch((error) => {
      if (error.name !== "AbortError") this.error.textContent = error.message;
    }).finally(() => {
      this.button.textContent = this.name;
      this.#abort = null;
    });
    await this.#done;
  }
}
