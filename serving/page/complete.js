/** Plain completion: the model continues a text. */

import { server } from "./api.js";
import { Answer } from "./answer.js";
import { showAttention } from "./attention.js";
import { $, announce, button, copy, el, Job, save } from "./dom.js";
import { closePanel } from "./panel.js";
import { sampling } from "./settings.js";

let prompt = "";
let answer = null;

async function run(task) {
  closePanel();
  await job.run((signal) => {
    announce("The model writes.");
    return task(signal);
  });
  $("complete-tools").hidden = !answer.tokens.length;
  announce(answer.text);
}

const job = new Job($("complete-form"), () => run((signal) => {
  prompt = $("prompt").value;
  answer = new Answer(server.model, sampling(), { choose: goOn, label: "Tokens of the text that the model wrote" });
  $("completion").replaceChildren(el("b", {}, prompt), answer.element, answer.note);
  $("completion").hidden = false;
  return answer.complete(prompt, signal);
}));

function goOn(index, other) {
  run((signal) => {
    const written = answer.goOn(index, other, signal);
    answer.row.focus(Math.min(index, answer.tokens.length - 1));
    return written;
  });
}

$("complete-tools").append(
  button("Continue", () => run((signal) => answer.goOn(answer.tokens.length, null, signal))),
  button("Copy", (event) => copy(prompt + answer.text, event.target)),
  button("Save", () => save("text.txt", `${prompt}${answer.text}\n`)),
  button("Attention", () => showAttention(answer)),
);
