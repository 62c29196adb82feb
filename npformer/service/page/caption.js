// What a picture says, in a sentence: the same that a screen reader reads.

import { element } from "./dom.js";
import { KINDS } from "./view.js";
import { largest, percent } from "./weights.js";

const MOST = 4; // words that are named

/** The sentence for what is followed, {row, column}, as nodes. */
export function caption(view, { row, column }) {
  const { rows, columns, mean } = view;
  const looker = row === undefined ? undefined : named(rows[row]);
  if (row !== undefined && column !== undefined) {
    return [looker, " looks at ", named(columns[column]), ` with ${percent(mean.at(row, column))}.`];
  }
  if (row !== undefined) {
    const found = largest(mean.row(row), MOST, 0.01);
    return [...looking(view, looker), ...listed(found, columns), "."];
  }
  if (column !== undefined) {
    const found = largest(mean.column(column), MOST, 0.01);
    if (!found.length) return ["Hardly any word looks at ", named(columns[column]), "."];
    return [named(columns[column]), " is looked at by ", ...listed(found, rows), "."];
  }
  const spread = mean.spread < 1.05 ? "one word" : `${mean.spread.toFixed(1)} words`;
  return [`${KINDS[view.kind].about} Here each looks at ${spread} on average.`];
}

/** The name of a picture: its layer and heads. */
export function title({ layer, head }) {
  const heads = { mean: "mean of all heads", all: "all heads" }[head] ?? `head ${head + 1}`;
  return `Layer ${layer + 1}, ${heads}`;
}

function looking({ kind }, word) {
  if (kind === "encoder") return [word, " looks at "];
  return ["To write ", word, ", the model looks at "];
}

const named = ({ text, mark }) =>
  mark ? element("em", {}, text) : element("bdi", { class: "quoted" }, text);

function listed(found, words) {
  return found.flatMap(({ place, value }, i) => [
    i ? ", " : "",
    named(words[place]),
    element("span", { class: "number" }, ` ${percent(value)}`),
  ]);
}
