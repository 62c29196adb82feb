// The service: what the page asks of it, and what may go wrong on the way.

/** A fault that the reader is told of; `message` is a sentence. */
export class ServiceError extends Error {}

const UNREACHABLE =
  "The server cannot be reached. Your text is kept here: see whether the server runs, and try again.";
const BROKEN_OFF = "The connection broke off before the answer was complete. Try again.";
const NO_JSON = "The server’s answer is not what this page understands. Is it another program’s port?";

/** The model’s name, languages and configuration, and the limits of a request. */
export const model = async (signal) => json(await ask("model", undefined, signal), signal);

/** The attention weights of a text and a translation of it. */
export const attention = async (request, signal) =>
  json(await ask("attention", request, signal), signal);

/** Translate; `partial` is called with the text so far. Returns the whole answer. */
export async function stream(request, signal, partial) {
  const response = await ask("stream", request, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let answer;
  for (;;) {
    const { value, done } = await guarded(() => reader.read(), signal);
    text += value ?? "";
    const lines = text.split("\n");
    text = done ? "" : lines.pop();
    for (const line of lines.filter((each) => each.trim())) {
      const said = parsed(line);
      if (said.error) throw new ServiceError(whole(said.error));
      if (said.translations) answer = said;
      else partial(said.partial);
    }
    if (done) break;
  }
  if (!answer) throw new ServiceError(BROKEN_OFF);
  return answer;
}

async function ask(where, request, signal) {
  const options = { signal, cache: "no-store" };
  if (request !== undefined) {
    options.method = "POST";
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(request);
  }
  const response = await guarded(() => fetch(where, options), signal, UNREACHABLE);
  if (!response.ok) throw new ServiceError(await sentence(response));
  return response;
}

async function json(response, signal) {
  return parsed(await guarded(() => response.text(), signal));
}

/** The server’s own sentence where it gives one. */
async function sentence(response) {
  const body = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(body);
    if (typeof error === "string") return whole(error);
  } catch (fault) {
    if (!(fault instanceof SyntaxError)) throw fault;
  }
  return `The server answered with status ${response.status} and no explanation.`;
}

/** A sentence with a capital and a full stop, which messages of programs have not. */
const whole = (sentence) =>
  sentence.charAt(0).toUpperCase() + sentence.slice(1) + (/[.!?]$/.test(sentence) ? "" : ".");

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (fault) {
    throw new ServiceError(NO_JSON, { cause: fault });
  }
}

/** A network failure as a sentence; an abort stays what it is. */
async function guarded(action, signal, message = BROKEN_OFF) {
  try {
    return await action();
  } catch (fault) {
    signal?.throwIfAborted();
    throw new ServiceError(message, { cause: fault });
  }
}
