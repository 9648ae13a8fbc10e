/** Two checkpoints side by side, with the same prompt, settings and seed. */

import { server } from "./api.js";
import { Answer } from "./answer.js";
import { $, announce, el, Job } from "./dom.js";
import { closePanel } from "./panel.js";
import { sampling } from "./settings.js";

const sides = ["left", "right"].map($);
const models = () => sides.map((side) => server.models.find((model) => model.id === side.value));
const bothChat = () => models().every((model) => model.chat);

const job = new Job($("compare-form"), () => job.run(async (signal) => {
  closePanel();
  announce("Both models write.");
  const [fields, prompt, chat] = [sampling(), $("compare-prompt").value, bothChat()];
  const answers = models().map((model) => new Answer(model, fields, { label: `Tokens of ${model.id}` }));
  $("pair").replaceChildren(...answers.map((answer) => el("section", { class: "paper", "aria-label": answer.model.id },
    el("h3", {}, answer.model.id), chat ? null : el("b", {}, prompt), answer.element, answer.note)));
  await Promise.all(answers.map((answer) => (
    chat ? answer.talk([{ role: "user", content: prompt }], signal) : answer.complete(prompt, signal))));
  announce(answers.map((answer) => `${answer.model.id}: ${answer.text}`).join(" "));
}));

function namePrompt() {
  $("compare-label").textContent = bothChat() ? "Message" : "Beginning of the text";
}
for (const side of sides) side.addEventListener("change", namePrompt);

document.addEventListener("models", () => {
  const several = server.models.length > 1;
  $("compare-form").hidden = !several;
  $("compare-cannot").hidden = several;
  for (const side of sides) side.replaceChildren(...server.models.map(({ id }) => el("option", { value: id }, id)));
  sides[1].value = server.models.at(-1).id;
  namePrompt();
});
