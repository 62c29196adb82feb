// Attention as a heat map: a row for each word that looks, a column for each that is looked at.
//
// The picture has a pixel for each cell, and is stretched without smoothing: so it stays sharp at
// any size. With several heads, a cell has a stripe for each.

import { ink, rgb, strength } from "./colours.js";
import { element } from "./dom.js";
import { moved } from "./keys.js";

/** Paint matrices of the same words, stripes side by side, each in its own hue. */
export function paint(canvas, heads, hues) {
  const { rows, columns } = heads[0];
  canvas.width = Math.max(1, columns * heads.length);
  canvas.height = Math.max(1, rows);
  const image = new ImageData(canvas.width, canvas.height);
  heads.forEach(({ values }, head) => {
    const [red, green, blue] = rgb(ink(hues[head]));
    for (let i = 0; i < values.length; i++) {
      const at = 4 * (i * heads.length + head);
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = 255 * strength(values[i]);
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export class HeatMap {
  #view;
  #cell = [0, 0];
  #labels = { row: [], column: [] };

  /** hovered, followed, pinned: as for Lines; a cell is {row, column}. */
  constructor(root, { hovered, followed, pinned }) {
    this.root = root;
    this.columns = element("ol", { class: "labels columns", "aria-hidden": "true" });
    this.rows = element("ol", { class: "labels rows", "aria-hidden": "true" });
    this.canvas = element("canvas", {});
    this.shade = { row: element("div", { class: "band row" }), column: element("div", { class: "band column" }) };
    this.mark = element("div", { class: "cursor" });
    this.cells = element(
      "div",
      {
        class: "cells", tabindex: "0", role: "application",
        "aria-roledescription": "heat map", "aria-describedby": "caption",
      },
      this.canvas, this.shade.row, this.shade.column, this.mark,
    );
    root.append(element("div", { class: "plot" }, this.columns, this.rows, this.cells));
    const cellAt = (event) => {
      const box = this.cells.getBoundingClientRect();
      const { rows, columns } = this.#view.mean;
      const at = (place, size, count) =>
        Math.max(0, Math.min(count - 1, Math.floor((place / size) * count)));
      return {
        row: at(event.clientY - box.top, box.height, rows),
        column: at(event.clientX - box.left, box.width, columns),
      };
    };
    this.cells.addEventListener("pointermove", (event) => hovered(cellAt(event)));
    this.cells.addEventListener("pointerleave", () => hovered());
    this.cells.addEventListener("click", (event) => {
      const { row, column } = cellAt(event);
      this.#cell = [row, column];
      pinned({ row, column });
    });
    this.cells.addEventListener("focus", () => {
      if (this.cells.matches(":focus-visible")) followed(this.#place());
    });
    this.cells.addEventListener("blur", () => followed());
    this.cells.addEventListener("keydown", (event) => {
      const to = moved(event, this.#cell, this.#view.mean.rows, this.#view.mean.columns);
      if (to) {
        this.#cell = to;
        followed(this.#place());
        this.#reveal();
      } else if (event.key === "Enter" || event.key === " ") {
        pinned(this.#place());
      } else {
        return;
      }
      event.preventDefault();
    });
    this.call = { hovered, pinned };
  }

  show(view) {
    this.#view = view;
    const { rows, columns } = view.mean;
    this.#cell = [Math.min(this.#cell[0], rows - 1), Math.min(this.#cell[1], columns - 1)];
    for (const [name, value] of Object.entries({ rows, columns })) {
      this.root.style.setProperty(`--${name}`, value);
    }
    this.cells.setAttribute("aria-label", `Weights of ${rows} by ${columns} words; arrow keys move`);
    for (const [side, list] of [["column", this.columns], ["row", this.rows]]) {
      this.#labels[side] = view[`${side}s`].map((word, place) => this.#label(word, { [side]: place }));
      list.replaceChildren(...this.#labels[side]);
    }
    this.paint();
  }

  paint() {
    if (this.#view) paint(this.canvas, this.#view.heads, this.#view.hues);
  }

  follow({ row, column }) {
    const { rows, columns } = this.#view.mean;
    const bands = { row: [row, rows], column: [row === undefined ? column : undefined, columns] };
    for (const [side, [place, count]] of Object.entries(bands)) {
      const band = this.shade[side];
      band.hidden = place === undefined;
      band.style.setProperty("--from", `${(100 * (place ?? 0)) / count}%`);
      band.style.setProperty("--to", `${(100 * ((place ?? 0) + 1)) / count}%`);
    }
    this.mark.hidden = row === undefined || column === undefined;
    this.mark.style.setProperty("--row", row ?? 0);
    this.mark.style.setProperty("--column", column ?? 0);
    this.#labels.row.forEach((label, i) => label.classList.toggle("followed", i === row));
    this.#labels.column.forEach((label, i) => label.classList.toggle("followed", i === column));
  }

  #place() {
    return { row: this.#cell[0], column: this.#cell[1] };
  }

  #label(word, place) {
    return element(
      "li",
      {
        class: word.mark ? "mark" : null,
        on: {
          pointermove: () => this.call.hovered(place),
          pointerleave: () => this.call.hovered(),
          click: () => this.call.pinned(place),
        },
      },
      element("span", { dir: "auto" }, word.text),
    );
  }

  /** Scroll the cell into sight, within its box. */
  #reveal() {
    const label = this.#labels.column[this.#cell[1]];
    const box = this.root.getBoundingClientRect();
    const place = label.getBoundingClientRect();
    const left = this.rows.getBoundingClientRect().right;
    if (place.left < left) this.root.scrollLeft -= left - place.left;
    if (place.right > box.right) this.root.scrollLeft += place.right - box.right;
    this.mark.scrollIntoView({ block: "nearest" });
  }
}
