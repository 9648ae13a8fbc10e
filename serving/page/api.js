/** Talks to the server: questions with one answer, and answers that arrive as a stream. */

export const server = { models: [], model: null }; // what GET /v1/models says, and the one that is chosen

let keyForm = null; // keyForm(wasWrong) promises the key that a person types
let asking = null; // two calls at the same time share one form
export const setKeyForm = (form) => { keyForm = form; };

async function request(path, body, signal) {
  const key = sessionStorage.getItem("key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal }).catch(explain);
  if (answer.ok) return answer;
  if (answer.status === 401) {
    if (key === sessionStorage.getItem("key")) { // else another call has asked for the key in the meantime
      asking ??= keyForm(Boolean(key)).finally(() => { asking = null; });
      sessionStorage.setItem("key", await asking);
    }
    return request(path, body, signal);
  }
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error?.message ?? `The server answered with status ${answer.status}.`);
}

/** Browsers say "Failed to fetch" or "network error"; an abort stays an abort. */
function explain(error) {
  if (error.name === "AbortError") throw error;
  throw new Error("The server does not answer. Is serve.py still running?");
}

/** The JSON that answers a GET, or a POST if there is a body. */
export async function ask(path, body, signal) {
  return (await request(path, body, signal)).json();
}

/** The chunks of a stream. To abort `signal` stops the decoding on the server. */
export async function* stream(path, body, signal) {
  const answer = await request(path, { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read().catch(explain);
    if (done) throw new Error("The answer broke off. Try again.");
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events.filter((one) => one.startsWith("data:"))) {
      const data = event.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
