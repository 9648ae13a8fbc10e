/** Starts the page: the models, the tabs, the form for the key. */

import { ask, server, setKeyForm } from "./api.js";
import { $, el, plural } from "./dom.js";
import { closePanel } from "./panel.js";
import "./settings.js";
import "./talk.js";
import "./complete.js";
import "./loss.js";
import "./attention.js";
import "./compare.js";

/* --- the tabs: the address says which one is open, so a teacher can send a link to it --- */

const tabs = [...document.querySelectorAll("[role=tab]")];
const nameOf = (tab) => tab.getAttribute("aria-controls");

function openTab() {
  const name = tabs.map(nameOf).find((one) => `#${one}` === location.hash) ?? (server.model.chat ? "talk" : "complete");
  closePanel();
  for (const tab of tabs) {
    const isOpen = nameOf(tab) === name;
    tab.setAttribute("aria-selected", isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    $(nameOf(tab)).hidden = !isOpen;
  }
  document.body.dataset.tab = name;
}

$("tabs").addEventListener("click", (event) => { if (tabs.includes(event.target)) location.hash = nameOf(event.target); });
$("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const tab = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  tab.focus();
  tab.click();
});

addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) event.target.form?.requestSubmit();
});

const showTokens = () => document.body.classList.toggle("show-tokens", $("show-tokens").checked);
$("show-tokens").addEventListener("change", showTokens);
showTokens();

/* --- the key --- */

setKeyForm((wasWrong) => new Promise((resolve, reject) => {
  $("key-says").textContent = wasWrong ? "The server does not know that key. Try again." : "Ask the person who started it.";
  $("key-form").onsubmit = (event) => {
    event.preventDefault(); // the page's policy forbids to send forms
    resolve($("key").value.trim());
    $("key-dialog").close();
  };
  $("key-dialog").onclose = () => {
    if (!$("key-dialog").open) reject(new Error("The server needs its key. Reload the page to type it.")); // else it is open again
  };
  $("key").value = "";
  $("key-dialog").showModal();
}));

/* --- the models --- */

function chooseModel() {
  const model = server.model = server.models.find(({ id }) => id === $("model").value);
  const size = new Intl.NumberFormat("en", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 2 });
  $("about").textContent = `${size.format(model.n_parameters)} parameters, ${plural(model.n_layer, "layer")}, ${plural(model.n_head, "head")} each, `
    + `context ${model.max_model_len.toLocaleString("en")} tokens, trained on ${model.chat ? "conversations" : "text"}`;
  document.dispatchEvent(new Event("model"));
}

$("model").addEventListener("change", chooseModel);

try {
  server.models = (await ask("/v1/models")).data;
  $("model").replaceChildren(...server.models.map(({ id }) => el("option", { value: id }, id)));
  chooseModel();
  document.dispatchEvent(new Event("models"));
  openTab();
  addEventListener("hashchange", openTab);
} catch (error) {
  $("trouble").textContent = error.message;
}
