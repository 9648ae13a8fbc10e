/** The conversation: messages, answers, and what one can do with each of them. */

import { server } from "./api.js";
import { Answer } from "./answer.js";
import { showAttention } from "./attention.js";
import { $, announce, button, copy, el, Job, save } from "./dom.js";
import { closePanel } from "./panel.js";
import { sampling } from "./settings.js";

let turns = []; // {role, text} of a user; {role, answer} of the model, or {role, text} after a person changed what it said

const textOf = (turn) => turn.answer?.text ?? turn.text;

function messages() {
  const said = turns.map((turn) => ({ role: turn.role, content: textOf(turn) }));
  const system = $("system").value.trim();
  return system ? [{ role: "system", content: system }, ...said] : said;
}

const job = new Job($("talk-form"), () => {
  const text = $("message").value.trim();
  $("message").focus();
  if (!text) return;
  $("message").value = "";
  turns.push({ role: "user", text });
  answerTo(turns.length);
});

/** Write the answer to the first `n` turns; later turns go. */
function answerTo(n) {
  const turn = { role: "assistant" };
  return run(turn, (signal) => {
    turns.length = n;
    const before = messages();
    turn.answer = new Answer(server.model, sampling(), { choose: (index, other) => goOn(turn, index, other), grown: () => follow() });
    turns.push(turn);
    draw();
    follow(true);
    return turn.answer.talk(before, signal);
  });
}

/** Let an answer go on from its token `index`, with `other` in its place; later turns go. */
function goOn(turn, index, other) {
  return run(turn, (signal) => {
    turns.length = turns.indexOf(turn) + 1;
    turn.answer.ending = null;
    draw();
    const written = turn.answer.goOn(index, other, signal);
    turn.answer.row.focus(Math.min(index, turn.answer.tokens.length - 1));
    return written;
  });
}

async function run(turn, task) {
  closePanel();
  await job.run((signal) => {
    announce("The model writes.");
    return task(signal);
  });
  if (!turn.answer) return; // another one was asked for at once
  drawActions(turn);
  follow();
  announce(`Answer: ${turn.answer.text}`);
}

/** Keep the end of the answer in sight, if it was in sight. */
function follow(always = false) {
  const below = $("talk").getBoundingClientRect().bottom - innerHeight;
  if (below > 0 && (always || below < 160)) scrollBy(0, below);
}

function draw() {
  $("turns").replaceChildren(...turns.map((turn) => {
    const name = turn.role === "user" ? "You" : turn.answer?.model.id ?? "Changed by you";
    const said = turn.answer ? [turn.answer.element, turn.answer.note] : [el("div", { class: "said" }, turn.text)];
    turn.actions = el("div", { class: "actions" });
    turn.item = el("li", { class: turn.role }, el("h3", {}, name), ...said, turn.actions);
    drawActions(turn);
    return turn.item;
  }));
}

/** The buttons under a turn; an answer gets them when it is written. */
function drawActions(turn) {
  const { answer, role } = turn;
  if (answer && answer.ending === null) return;
  turn.actions.replaceChildren(...[
    role === "assistant" && button("Retry", () => { answerTo(turns.indexOf(turn)); $("message").focus(); }),
    answer && answer.ending !== "stop" && button("Continue", () => goOn(turn, answer.tokens.length, null)),
    button("Edit", () => edit(turn)),
    button("Copy", (event) => copy(textOf(turn), event.target)),
    answer?.tokens.length > 0 && button("Attention", () => showAttention(answer)),
  ].filter(Boolean));
}

/** Change a turn. The model answers a changed message again; a changed answer stays as it is written. */
async function edit(turn) {
  await job.stop();
  closePanel();
  const isUser = turn.role === "user";
  const area = el("textarea", { rows: 3, "aria-label": isUser ? "Your message" : "The answer" }, textOf(turn));
  const close = () => { draw(); turn.actions.querySelector("button").focus(); };
  const done = (event) => {
    event.preventDefault();
    Object.assign(turn, { text: area.value.trim(), answer: undefined });
    if (isUser && turn.text) {
      answerTo(turns.indexOf(turn) + 1);
      $("message").focus();
    } else close();
  };
  const keys = (event) => { if (event.key === "Escape") close(); };
  turn.item.replaceChildren(turn.item.firstChild, el("form", { onsubmit: done, onkeydown: keys }, area,
    el("div", { class: "buttons" }, el("button", { class: "main" }, isUser ? "Send again" : "Keep"), button("Cancel", close))));
  area.focus();
}

$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!job.runs) $("talk-form").requestSubmit();
});

$("talk-new").addEventListener("click", async () => {
  await job.stop();
  closePanel();
  turns = [];
  draw();
  $("message").focus();
});

$("talk-save").addEventListener("click", () => save("conversation.jsonl", `${JSON.stringify({ messages: messages() })}\n`));

document.addEventListener("model", () => {
  const { id, chat } = server.model;
  $("talk-can").hidden = !chat;
  $("talk-cannot").hidden = chat;
  $("talk-cannot").textContent = `${id} learned to continue text, not to answer, so it cannot hold a conversation. Use “Complete”.`;
});
