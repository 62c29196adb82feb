// The page: from the text to its translations, and to the pictures of one of them.

import { byId } from "./dom.js";
import { Pictures } from "./pictures.js";
import * as service from "./service.js";
import { Translations } from "./translations.js";

const BEAM = 4;

const input = byId("text");
const output = byId("translation");
const pictures = new Pictures();
const translations = new Translations(byId("translations"), { chosen: choose });

let limits = { characters: Infinity, alternatives: 4, beam: BEAM };
let running = new AbortController(); // of the last request: a newer one takes its place
let translated = ""; // the text of the translations that are shown
let shown = ""; // the translation that is shown, when it is whole

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  translate();
});
byId("again").addEventListener("click", () => translate());
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
input.addEventListener("input", measure);
greet();

/** Say whose page it is. The page works without; then a translation tells what is wrong. */
async function greet() {
  try {
    const about = await service.model();
    limits = { ...limits, ...about.limits };
    introduce(about);
  } catch (fault) {
    if (!(fault instanceof service.ServiceError)) throw fault;
    tell(fault.message);
  }
  measure();
}

function introduce({ name, languages, config, parameters }) {
  byId("model").textContent = name;
  for (const [side, box] of [["source", input], ["target", output]]) {
    const language = languages[side];
    if (!language) continue;
    byId(`${side}-name`).textContent = language.name;
    box.lang = language.code;
  }
  const millions = (parameters / 1e6).toPrecision(2);
  byId("configuration").textContent =
    `${config.layers} layers, ${config.heads} heads, ${Number(millions)} million parameters`;
}

/** The number of characters, as the server counts them, and whether it takes so many. */
function measure() {
  const count = [...input.value].length;
  const tooMany = count > limits.characters;
  const number = (n) => n.toLocaleString("en");
  byId("count").textContent =
    limits.characters === Infinity ? number(count) : `${number(count)} of ${number(limits.characters)}`;
  byId("count").classList.toggle("over", tooMany);
  byId("too-long").textContent = tooMany
    ? `The server takes texts of up to ${number(limits.characters)} characters; this one has ${number(count)}.`
    : "";
  input.setAttribute("aria-invalid", String(tooMany));
  output.classList.toggle("stale", input.value !== translated);
}

async function translate() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const text = input.value;
  tell("");
  if (!text.trim()) {
    busy(false);
    output.textContent = shown; // not what a translation that was broken off had so far
    measure();
    say("There is nothing to translate yet: type a sentence.");
    input.focus();
    return;
  }
  busy(true);
  say("Translating …");
  const began = performance.now();
  const request = {
    text,
    beam: Math.min(BEAM, limits.beam),
    alternatives: Math.min(BEAM, limits.alternatives),
  };
  await attempt(signal, async () => {
    const answer = await service.stream(request, signal, (partial) => {
      output.classList.remove("stale");
      output.textContent = partial;
    });
    const [best] = answer.translations;
    const seconds = (performance.now() - began) / 1000;
    say(`Translated in ${seconds.toFixed(seconds < 1 ? 2 : 1)} s.${best.note ? ` The text ${best.note}.` : ""}`);
    translated = text;
    translations.show([best, ...best.alternatives]);
    byId("ranking").hidden = !best.alternatives.length;
    await picture(best, signal);
  });
}

/** Show another translation of the list, and its attention. */
async function choose(translation) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  tell("");
  say("");
  await attempt(signal, () => picture(translation, signal));
}

async function picture(translation, signal) {
  shown = translation.text;
  output.textContent = shown;
  measure();
  byId("no-pictures").textContent = "";
  try {
    pictures.show(await service.attention({ text: translated, translation: translation.text }, signal));
  } catch (fault) {
    if (fault instanceof service.ServiceError) {
      pictures.clear();
      byId("no-pictures").textContent = fault.message;
    } else {
      throw fault;
    }
  }
}

/** Do what may fail, and tell the reader. What a newer request has aborted is not told. */
async function attempt(signal, action) {
  try {
    await action();
  } catch (fault) {
    if (signal.aborted) return;
    if (!(fault instanceof service.ServiceError)) {
      tell("The page has a fault; the browser’s console has it in full.");
      throw fault;
    }
    output.textContent = shown;
    measure();
    say("");
    tell(fault.message);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

function busy(isBusy) {
  document.body.classList.toggle("busy", isBusy);
  output.setAttribute("aria-busy", String(isBusy));
}

/** What happens, for all readers, politely. */
function say(sentence) {
  byId("status").textContent = sentence;
}

/** What went wrong, with a way to try again; nothing if the sentence is empty. */
function tell(sentence) {
  byId("problem").hidden = !sentence;
  byId("fault").textContent = sentence;
}
