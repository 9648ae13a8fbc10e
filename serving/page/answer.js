/** One answer of a model: it grows while its tokens arrive, and it can go on from another token. */

import { ask, stream } from "./api.js";
import { el, plural } from "./dom.js";
import { ENDS, openPanel } from "./panel.js";
import { share, TokenRow } from "./tokens.js";

const ENDINGS = { stop: "the model ended it", length: "max_tokens reached", abort: "stopped", error: "broken off" };

export class Answer {
  /**
   * `fields` are those of sampling. `choose(index, token)` goes on from another token; without it the panel only shows.
   * `grown` is called for each piece of text.
   */
  constructor(model, fields, { label = "Tokens of the answer", choose = null, grown = () => {} } = {}) {
    Object.assign(this, { model, fields, choose, grown, promptIds: [], tokens: [], text: "", ending: null });
    this.plain = el("div", { class: "plain" }); // for screen readers, and for all when tokens are not shown
    this.row = new TokenRow(label, { open: (index) => this.#open(index) });
    this.note = el("p", { class: "soft note" });
    this.element = el("div", { class: "answer" }, this.plain, this.row.element);
  }

  get ids() {
    return [...this.promptIds, ...this.tokens.map((token) => token.id)];
  }

  /** Answer a conversation. */
  talk(messages, signal) {
    return this.#read("/v1/chat/completions", { messages, logprobs: true }, signal);
  }

  /** Continue a text, or ids. */
  complete(prompt, signal) {
    return this.#read("/v1/completions", { prompt, logprobs: 0 }, signal);
  }

  /** Keep the first `length` tokens, add `other` if there is one, and write what follows. */
  async goOn(length, other, signal) {
    this.tokens.length = length;
    this.row.cut(length);
    this.#setText(this.tokens.map((token) => token.text).join(""));
    if (other && ENDS.test(other.text)) this.#end("stop");
    else {
      if (other) this.#add([other], other.text);
      await this.complete(this.ids, signal);
    }
  }

  async #read(path, body, signal) {
    let ending = "error";
    this.note.textContent = "";
    this.element.setAttribute("aria-busy", "true");
    try {
      for await (const chunk of stream(path, { model: this.model.id, ...this.fields, ...body, return_token_ids: true }, signal)) {
        if (chunk.prompt_token_ids && !this.promptIds.length) this.promptIds = chunk.prompt_token_ids;
        const [choice] = chunk.choices;
        this.#add(tokensOf(choice), choice.delta?.content ?? choice.text ?? "");
        ending = choice.finish_reason ?? ending;
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      ending = "abort";
    } finally {
      this.element.removeAttribute("aria-busy");
      this.#end(ending);
    }
  }

  #add(tokens, text) {
    const parts = share(tokens.map((token) => token.text), text);
    tokens.forEach((token, i) => {
      this.tokens.push({ ...token, text: parts[i] });
      this.row.add(this.tokens.at(-1));
    });
    this.#setText(this.text + text);
  }

  #setText(text) {
    this.text = this.plain.textContent = text;
    this.grown();
  }

  #end(ending) {
    this.ending = ending;
    this.note.textContent = `${plural(this.tokens.length, "token")}, ${ENDINGS[ending] ?? ending}. Seed ${this.fields.seed}. `
      + `Context: ${this.ids.length.toLocaleString("en")} of ${this.model.max_model_len.toLocaleString("en")} tokens.`;
  }

  #open(index) {
    const before = this.ids.slice(0, this.promptIds.length + index + 1);
    const ids = before.slice(-this.model.max_model_len); // of a longer text the model sees only the end
    const details = ask("/inspect/tokens", { model: this.model.id, ids, top: 10 })
      .then((answer) => ({ ...answer.tokens.at(-1), cut: ids.length < before.length }));
    const choose = this.choose && ((other) => this.choose(index, other));
    openPanel({ token: this.tokens[index], index, row: this.row, details, choose });
  }
}

/** The tokens of a chunk; conversations and texts write them in two ways. */
function tokensOf({ logprobs, token_ids: ids }) {
  if (logprobs?.content) return logprobs.content.map(({ token, logprob }, i) => ({ id: ids[i], text: token, logprob }));
  return (logprobs?.tokens ?? []).map((token, i) => ({ id: ids[i], text: token, logprob: logprobs.token_logprobs[i] }));
}
