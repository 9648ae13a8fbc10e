/** The loss of a text that somebody typed, token by token. */

import { ask, server } from "./api.js";
import { $, announce, el, Job } from "./dom.js";
import { closePanel, openPanel } from "./panel.js";
import { share, TokenRow } from "./tokens.js";

const job = new Job($("loss-form"), () => job.run(async (signal) => {
  closePanel();
  const text = $("loss-text").value;
  const { tokens, loss, bits_per_byte: bits } = await ask("/inspect/tokens", { model: server.model.id, text, top: 10 }, signal);
  const parts = share(tokens.map((token) => token.text), text);
  const row = new TokenRow("Tokens of the text", {
    open: (index) => openPanel({ token: { ...tokens[index], text: parts[index] }, index, row, details: tokens[index] }),
  });
  tokens.forEach((token, i) => row.add({ ...token, text: parts[i] }));
  const figures = loss == null ? [] : [
    [loss.toFixed(4), "mean loss, nats per token"],
    [bits?.toFixed(4) ?? "none", "bits per byte"],
    [Math.exp(loss).toFixed(1), "perplexity: as if it guessed between so many tokens"],
    [tokens.length - 1, "tokens"],
  ];
  $("losses").replaceChildren(...figures.map(([value, name]) => el("div", {}, el("strong", {}, String(value)), ` ${name}`)));
  $("loss-tokens").replaceChildren(row.element);
  $("loss-tokens").hidden = false;
  announce(loss == null ? "The text has no token to predict." : `Mean loss ${loss.toFixed(2)} nats. The tokens follow.`);
}));
