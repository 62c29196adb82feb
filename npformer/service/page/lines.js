// Attention as lines between words: on the left what is looked at, on the right who looks.

import { ink, strength } from "./colours.js";
import { element, whenResized } from "./dom.js";
import { moved, stopAt } from "./keys.js";
import { percent } from "./weights.js";

const LEAST = 0.01; // what is weaker is not drawn
const HIGHEST = 8192; // pixels of a canvas: browsers have limits
const LEVELS = 20; // lines of a level are drawn at once

export class Lines {
  #view;
  #followed = {};
  #size = [0, 0]; // of the canvases: asking anew would lay out the page at each move of the pointer
  #words = { row: [], column: [] };

  /**
   * Each is called with a place, {row} or {column}: hovered and followed, by the pointer or by the
   * keys, also with none; pinned, to stay there.
   */
  constructor(root, { hovered, followed, pinned }) {
    this.root = root;
    this.columns = element("ol", { class: "words columns" });
    this.rows = element("ol", { class: "words rows" });
    this.all = element("canvas", { class: "all" });
    this.some = element("canvas", { class: "some" });
    this.between = element("div", { class: "between", "aria-hidden": "true" }, this.all, this.some);
    root.append(this.columns, this.between, this.rows);
    this.call = { hovered, followed, pinned };
    root.addEventListener("keydown", (event) => this.#move(event));
    whenResized(this.between, () => this.draw());
  }

  show(view) {
    const same = this.#view && this.#labels(this.#view) === this.#labels(view);
    this.#view = view;
    this.root.style.setProperty("--count", Math.max(view.rows.length, view.columns.length));
    if (!same) {
      for (const [side, list] of [["column", this.columns], ["row", this.rows]]) {
        this.#words[side] = view[`${side}s`].map((word, place) => this.#button(word, side, place));
        list.replaceChildren(...this.#words[side].map((button) => element("li", {}, button)));
      }
      stopAt(this.#buttons, this.#words.row[0]);
    }
    this.draw();
  }

  /** Show whom the words of a place look at, or by whom they are looked at. */
  follow(followed) {
    this.#followed = followed;
    const { row, column } = followed;
    const { mean } = this.#view;
    const active = row !== undefined || column !== undefined;
    this.root.classList.toggle("following", active);
    const weights = {
      column: row === undefined ? undefined : mean.row(row),
      row: row === undefined && column !== undefined ? mean.column(column) : undefined,
    };
    for (const [side, buttons] of Object.entries(this.#words)) {
      buttons.forEach((button, place) => {
        const weight = weights[side]?.[place];
        const isFollowed = side === "row" ? place === row : row === undefined && place === column;
        button.classList.toggle("followed", isFollowed);
        button.classList.toggle("faint", active && !isFollowed && !(weight >= LEAST));
        button.style.setProperty("--weight", weight === undefined ? 0 : strength(weight));
        button.lastChild.textContent = weight >= LEAST ? percent(weight) : "";
      });
    }
    this.#draw(this.some, active ? followed : null);
  }

  draw() {
    if (!this.#view) return;
    this.#size = [this.between.clientWidth, this.between.clientHeight];
    this.#draw(this.all, {});
    this.follow(this.#followed);
  }

  focus(side, place) {
    const button = this.#words[side][place];
    stopAt(this.#buttons, button);
    button.focus();
  }

  get #buttons() {
    return [...this.#words.row, ...this.#words.column];
  }

  #labels({ kind, rows, columns }) {
    return JSON.stringify([kind, rows.map((r) => r.text), columns.map((c) => c.text)]);
  }

  #button(word, side, place) {
    const place_ = { [side]: place };
    return element(
      "button",
      {
        type: "button",
        class: word.mark ? "word mark" : "word",
        title: word.text.length > 12 ? word.text : null,
        on: {
          pointermove: () => this.call.hovered(place_),
          pointerleave: () => this.call.hovered(),
          focus: (event) => event.target.matches(":focus-visible") && this.call.followed(place_),
          blur: () => this.call.followed(),
          click: () => this.call.pinned(place_),
        },
      },
      element("span", { class: "text", dir: "auto" }, word.text),
      element("span", { class: "weight" }),
    );
  }

  #move(event) {
    const side = this.#words.row.includes(event.target) ? "row" : "column";
    const place = this.#words[side].indexOf(event.target);
    if (place < 0) return;
    const counts = [this.#words[side].length, 2];
    const to = moved(event, [place, side === "row" ? 1 : 0], ...counts);
    if (!to) return;
    event.preventDefault();
    const other = to[1] === 1 ? "row" : "column";
    this.focus(other, Math.min(to[0], this.#words[other].length - 1));
  }

  /** Draw the lines of all words, of a row or of a column; none if `only` is null. */
  #draw(canvas, only) {
    const [width, height] = this.#size;
    const scale = Math.min(devicePixelRatio, HIGHEST / Math.max(1, height));
    const pixels = [Math.round(width * scale), Math.round(height * scale)];
    const context = canvas.getContext("2d");
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ...pixels);
    if (!only || !width) return;
    context.scale(scale, scale);
    context.lineCap = "round";
    const { heads, hues, rows, columns } = this.#view;
    const y = (place, count) => ((place + 0.5) * height) / count;
    const chosen = only.row ?? only.column;
    heads.forEach((matrix, head) => {
      const levels = Array.from({ length: LEVELS + 1 }, () => null);
      for (let row = 0; row < matrix.rows; row++) {
        if (only.row !== undefined && row !== only.row) continue;
        for (let column = 0; column < matrix.columns; column++) {
          if (only.row === undefined && only.column !== undefined && column !== only.column) continue;
          const weight = matrix.at(row, column);
          if (weight < LEAST) continue;
          const path = (levels[Math.round(weight * LEVELS)] ??= new Path2D());
          // Heads lie beside each other, not over each other.
          const shift = (head - (heads.length - 1) / 2) * Math.min(1.6, 12 / heads.length);
          const from = y(column, columns.length) + shift;
          const to = y(row, rows.length) + shift;
          path.moveTo(0, from);
          path.bezierCurveTo(width * 0.45, from, width * 0.55, to, width, to);
        }
      }
      context.strokeStyle = ink(hues[head]);
      levels.forEach((path, level) => {
        if (!path) return;
        const weight = Math.max(level / LEVELS, 0.02);
        context.globalAlpha = strength(weight) * (chosen === undefined ? 0.75 : 1);
        context.lineWidth = (0.5 + 3 * weight) / Math.sqrt(Math.min(heads.length, 3));
        context.stroke(path);
      });
    });
  }
}
