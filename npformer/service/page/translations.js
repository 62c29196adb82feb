// The best translations with their scores, of which one is chosen.

import { element } from "./dom.js";

const MOST_COMPARED = 4e6; // pairs of words

export class Translations {
  /** chosen: called with the translation that the reader has picked. */
  constructor(root, { chosen }) {
    this.root = root;
    this.call = { chosen };
  }

  show(found) {
    const [best] = found;
    this.root.replaceChildren(
      ...found.map((translation, place) => {
        const input = element("input", {
          type: "radio", name: "translation", checked: place === 0,
          on: { change: () => this.call.chosen(translation) },
        });
        // How likely it is beside the best one.
        const bar = element("span", { class: "bar", "aria-hidden": "true" });
        bar.style.setProperty("--share", Math.exp(Math.min(0, (translation.score ?? -Infinity) - best.score)));
        return element(
          "li", {},
          element(
            "label", {},
            input,
            element("span", { class: "text", dir: "auto" }, ...marked(translation.text, best.text)),
            element("span", { class: "score", title: "log-probability by length" },
              bar, translation.score?.toFixed(2).replace("-", "−") ?? "none"),
          ),
        );
      }),
    );
  }
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
const segments = (text) => Array.from(segmenter.segment(text), ({ segment }) => segment);

/**
 * A text whose words that are not in the best translation, in its order, are marked. Of very long
 * texts none are: comparing them would take gigabytes.
 */
function marked(text, best) {
  const words = segments(text);
  const others = segments(best);
  if (words.length * others.length > MOST_COMPARED) return [text];
  const common = inCommon(words, others);
  return words.map((word, i) => (common.has(i) || !word.trim() ? word : element("mark", {}, word)));
}

/** The places of a longest common subsequence, in the first of two lists. */
function inCommon(first, second) {
  const lengths = Array.from({ length: first.length + 1 }, () => new Uint16Array(second.length + 1));
  for (let i = first.length - 1; i >= 0; i--) {
    for (let j = second.length - 1; j >= 0; j--) {
      lengths[i][j] =
        first[i] === second[j]
          ? lengths[i + 1][j + 1] + 1
          : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const places = new Set();
  for (let i = 0, j = 0; i < first.length && j < second.length; ) {
    if (first[i] === second[j]) {
      places.add(i);
      i++;
      j++;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) {
      i++;
    } else {
      j++;
    }
  }
  return places;
}
