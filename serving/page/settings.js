/** The settings of sampling: sliders with their values beside them. The defaults are those of gen.py. */

import { server } from "./api.js";
import { $, el } from "./dom.js";

const SLIDERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, value: 0.7, help: "Higher is bolder; 0 always takes the likeliest token." },
  { name: "top_k", min: 0, max: 200, step: 1, value: 50, off: 0, help: "Draw from so many likeliest tokens." },
  { name: "top_p", min: 0.05, max: 1, step: 0.05, value: 1, off: 1, help: "Draw from the likeliest that add up to this probability." },
  { name: "repetition_penalty", min: 1, max: 2, step: 0.05, value: 1, off: 1, help: "Makes every token of the context less likely." },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1, value: 0, off: 0, help: "Makes tokens of the answer less likely." },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1, value: 0, off: 0, help: "The same, once for each time they were written." },
  { name: "max_tokens", min: 1, max: 1000, step: 1, value: 300, help: "The answer ends after so many tokens." },
];

function setting(name, help, input, ...beside) {
  input.setAttribute("aria-describedby", `${name}-help`);
  const hint = el("p", { id: `${name}-help`, class: "soft" }, help);
  $("sliders").append(el("div", { class: "setting" }, el("label", { for: name }, name), ...beside, input, hint));
}

const inputs = SLIDERS.map(({ name, min, max, step, value, off, help }) => {
  const number = el("span", { class: "number", "aria-hidden": "true" });
  const input = el("input", { type: "range", id: name, min, max, step, value });
  const show = () => {
    number.textContent = Number(input.value) === off ? `${off} (off)` : Number(input.value).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0);
    input.setAttribute("aria-valuetext", number.textContent);
  };
  input.addEventListener("input", show);
  setting(name, help, input, number);
  show();
  return { input, set: (to) => { input.value = to; show(); } };
});

const seed = el("input", { type: "number", id: "seed", min: 0, step: 1, placeholder: "new each time" });
setting("seed", "The same seed gives the same text.", seed);

/** The fields of a request. Without a seed in the form it gets a new one, so that each answer can be repeated. */
export function sampling() {
  const fields = Object.fromEntries(inputs.map(({ input }) => [input.id, Number(input.value)]));
  return { ...fields, seed: seed.value === "" ? Math.floor(Math.random() * 2 ** 31) : Math.floor(Number(seed.value)) };
}

/** gen.py's defaults; but an answer in a conversation leaves most of the context to the conversation. */
function defaults() {
  const { chat, max_model_len: context } = server.model;
  return SLIDERS.map(({ name, value }) => (name === "max_tokens" && chat ? Math.min(value, Math.floor(context / 4)) : value));
}

let length = 300; // max_tokens follows the model as long as nobody has moved it
document.addEventListener("model", () => {
  const slider = inputs.at(-1);
  if (Number(slider.input.value) === length) slider.set(defaults().at(-1));
  length = defaults().at(-1);
});

$("defaults").addEventListener("click", () => {
  defaults().forEach((value, i) => inputs[i].set(value));
  seed.value = "";
});

$("settings").open = matchMedia("(min-width: 60rem)").matches; // on a phone there is no room for them beside the text
