// All layers and heads as small multiples, from which one is picked. A row is a layer.

import { hue } from "./colours.js";
import { element } from "./dom.js";
import { paint } from "./heat_map.js";
import { moved, stopAt } from "./keys.js";

export class Overview {
  #cells = []; // [layer][0 for the mean, then heads]

  /** picked: called with {layer, head}. */
  constructor(root, { picked }) {
    this.root = root;
    this.call = { picked };
    root.setAttribute("role", "grid");
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  show({ rows, columns, layers }) {
    const heads = layers[0].length;
    this.root.style.setProperty("--heads", heads);
    this.root.style.setProperty("--shape", Math.max(0.5, Math.min(2, columns.length / rows.length)));
    const shape = `${layers.length} ${heads}`;
    if (this.shape !== shape) this.#build(layers.length, heads);
    this.shape = shape;
    layers.forEach((layer, i) => {
      [layer.mean, ...layer].forEach((matrix, place) => {
        const canvas = this.#cells[i][place].firstChild;
        paint(canvas, [matrix], [hue(headAt(place), heads)]);
      });
    });
  }

  /** Mark what is chosen; with "all" no single picture is. */
  choose({ layer, head }) {
    this.#cells.forEach((cells, i) =>
      cells.forEach((cell, place) => {
        const isChosen = i === layer && headAt(place) === head;
        cell.setAttribute("aria-selected", String(isChosen));
      }),
    );
    const place = typeof head === "number" ? head + 1 : 0;
    stopAt(this.#cells.flat(), this.#cells[layer][place]);
  }

  #build(layers, heads) {
    const names = ["Mean", ...Array.from({ length: heads }, (_, head) => head + 1)];
    const top = element(
      "div",
      { role: "row", class: "line" },
      element("span", { role: "columnheader", class: "name" }, "Head"),
      ...names.map((name, place) =>
        element("span", { role: "columnheader", class: "name head" }, String(name)),
      ),
    );
    this.#cells = Array.from({ length: layers }, (_, layer) =>
      names.map((name, place) => {
        const cell = element(
          "div",
          {
            role: "gridcell", class: "cell",
            "aria-label": `Layer ${layer + 1}, ${place ? `head ${name}` : "mean of all heads"}`,
            on: { click: () => this.#pick(layer, place) },
          },
          element("canvas", { "aria-hidden": "true" }),
        );
        cell.style.setProperty("--hue", hue(headAt(place), heads));
        return cell;
      }),
    );
    const lines = this.#cells.map((cells, layer) =>
      element(
        "div",
        { role: "row", class: "line" },
        element("span", { role: "rowheader", class: "name" }, `Layer ${layer + 1}`),
        ...cells,
      ),
    );
    this.root.replaceChildren(top, ...lines);
  }

  #move(event) {
    const layer = this.#cells.findIndex((cells) => cells.includes(event.target));
    if (layer < 0) return;
    const place = this.#cells[layer].indexOf(event.target);
    const to = moved(event, [layer, place], this.#cells.length, this.#cells[0].length);
    if (to) this.#pick(...to);
    else if (event.key === "Enter" || event.key === " ") this.#pick(layer, place);
    else return;
    event.preventDefault();
  }

  #pick(layer, place) {
    this.call.picked({ layer, head: headAt(place) });
    this.#cells[layer][place].focus();
  }
}

const headAt = (place) => (place ? place - 1 : "mean");
