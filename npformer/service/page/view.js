// What is looked at: of an answer, the kind of attention, the layer, the heads and the unit.

import { hue } from "./colours.js";
import { Matrix } from "./weights.js";
import { joined, single } from "./words.js";

/** The kinds of attention: who looks (rows), at whom (columns), and what it is for. */
export const KINDS = {
  encoder: {
    name: "Encoder self-attention",
    rows: "source",
    columns: "source",
    about: "How the words of your sentence look at each other, to be understood together.",
  },
  cross: {
    name: "Cross-attention",
    rows: "predicted",
    columns: "source",
    about: "Which words of your sentence each word of the translation was chosen from.",
  },
  decoder: {
    name: "Decoder self-attention",
    rows: "predicted",
    columns: "target",
    about: "What each word of the translation looks back at, of what was written before it.",
  },
};

/** An answer of the service, of which views are taken. */
export class Attention {
  #of = new Map();

  /** Of the pieces of the target, `predicted` are written, and `target` are read to write them. */
  constructor({ source, predicted, target, ...weights }) {
    this.pieces = { source, predicted, target };
    this.layers = Object.fromEntries(
      Object.keys(KINDS).map((kind) => [
        kind,
        weights[kind].map((heads) => heads.map((head) => Matrix.of(head))),
      ]),
    );
  }

  /**
   * The view of a layer (counted from 0) and a head: a number from 0, "mean" or "all".
   * `heads`: the matrices that are shown; `mean`: theirs; `hues`: their colours.
   */
  view({ kind, layer, head, unit }) {
    const { rows, columns, layers } = this.#worded(kind, unit);
    const all = layers[layer];
    const places = head === "all" ? [...all.keys()] : [head];
    const heads = places.map((place) => (place === "mean" ? all.mean : all[place]));
    return {
      kind, layer, head, rows, columns, heads,
      mean: head === "all" ? all.mean : heads[0],
      hues: places.map((place) => hue(place, all.length)),
      hue: hue(head, all.length),
    };
  }

  /** The matrices of all layers and heads; each layer also has its `mean`. */
  overview({ kind, unit }) {
    return this.#worded(kind, unit);
  }

  #worded(kind, unit) {
    const key = `${kind} ${unit}`;
    if (!this.#of.has(key)) {
      const words = unit === "words" ? joined : single;
      const rows = words(this.pieces[KINDS[kind].rows]);
      const columns = words(this.pieces[KINDS[kind].columns]);
      const layers = this.layers[kind].map((heads) => {
        const between = heads.map((head) => head.between(rows, columns));
        return Object.assign(between, { mean: Matrix.mean(between) });
      });
      this.#of.set(key, { rows, columns, layers });
    }
    return this.#of.get(key);
  }
}
