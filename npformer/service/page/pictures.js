// The pictures of attention, and what of it is chosen: the kind, the layer, the heads, the unit
// and the word that is followed. Whatever changes, all of them show the same.

import { caption, title } from "./caption.js";
import { hue } from "./colours.js";
import { byId, radio } from "./dom.js";
import { HeatMap } from "./heat_map.js";
import { Lines } from "./lines.js";
import { Overview } from "./overview.js";
import { Attention, KINDS } from "./view.js";

export class Pictures {
  #attention = null;
  #chosen = { kind: "cross", layer: null, head: "mean", unit: "words" };
  #pinned = null;
  #view;
  #followed = {};
  #byPointer = true; // the pointer was moved since a key was pressed

  constructor() {
    const followed = (place) => this.#follow(place ?? this.#pinned ?? {});
    const call = {
      followed,
      hovered: (place) => this.#byPointer && followed(place),
      pinned: (place) => this.#pin(place),
    };
    this.#watchPointer();
    this.lines = new Lines(byId("lines"), call);
    this.heatMap = new HeatMap(byId("heat-map"), call);
    this.overview = new Overview(byId("overview"), { picked: (some) => this.#choose(some) });
    byId("kinds").replaceChildren(
      ...Object.entries(KINDS).map(([kind, { name, about }]) =>
        radio("kind", kind, name, {
          checked: kind === this.#chosen.kind, title: about,
          chosen: () => this.#choose({ kind }),
        }),
      ),
    );
    byId("units").replaceChildren(
      ...["words", "pieces"].map((unit) =>
        radio("unit", unit, unit === "words" ? "Words" : "Pieces", {
          checked: unit === this.#chosen.unit,
          title: unit === "words" ? "The pieces of a word together" : "As the vocabulary has them",
          chosen: () => this.#choose({ unit }),
        }),
      ),
    );
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#pinned) this.#pin(this.#pinned);
    });
    addEventListener("themechange", () => this.#attention && this.#draw());
  }

  /** Show an answer of the service. */
  show(answer) {
    const before = this.#attention;
    this.#attention = new Attention(answer);
    this.#pinned = null;
    const { layers } = this.#attention;
    const heads = layers.cross[0].length;
    const { layer, head } = this.#chosen;
    // The last layer but one aligns words best, by experience.
    if (layer === null || layer >= layers.cross.length) {
      this.#chosen.layer = Math.max(0, layers.cross.length - 2);
    }
    if (typeof head === "number" && head >= heads) this.#chosen.head = "mean";
    if (!before || before.layers.cross[0].length !== heads) this.#offerHeads(heads);
    this.#offerLayers();
    this.#draw();
    byId("pictures").hidden = false;
    this.lines.draw();
  }

  clear() {
    this.#attention = null;
    byId("pictures").hidden = true;
  }

  /** What scrolls under a pointer that rests, because of a key, is not followed. */
  #watchPointer() {
    const moved = (event) => {
      this.#byPointer ||= event.type === "pointerdown" || Boolean(event.movementX || event.movementY);
    };
    addEventListener("pointermove", moved, { capture: true });
    addEventListener("pointerdown", moved, { capture: true });
    addEventListener("keydown", () => (this.#byPointer = false), { capture: true });
  }

  #offerHeads(heads) {
    const names = [["mean", "Mean"], ["all", "All"]];
    for (let head = 0; head < heads; head++) names.push([head, String(head + 1)]);
    byId("heads").replaceChildren(
      ...names.map(([head, name]) => {
        const label = radio("head", String(head), name, { chosen: () => this.#choose({ head }) });
        label.style.setProperty("--hue", hue(head, heads));
        return label;
      }),
    );
  }

  #offerLayers() {
    const count = this.#attention.layers[this.#chosen.kind].length;
    this.#chosen.layer = Math.min(this.#chosen.layer, count - 1);
    if (byId("layers").childElementCount === count) return;
    byId("layers").replaceChildren(
      ...Array.from({ length: count }, (_, layer) =>
        radio("layer", String(layer), String(layer + 1), { chosen: () => this.#choose({ layer }) }),
      ),
    );
  }

  #choose(some) {
    Object.assign(this.#chosen, some);
    if ("kind" in some || "unit" in some) this.#pinned = null;
    this.#offerLayers();
    this.#draw("layer" in some || "head" in some);
  }

  /** onlyView: the overview has been drawn already. */
  #draw(onlyView = false) {
    const { layer, head } = this.#chosen;
    this.#view = this.#attention.view(this.#chosen);
    for (const [name, value] of [["layer", layer], ["head", head]]) {
      byId(`${name}s`).querySelector(`input[value="${value}"]`).checked = true;
    }
    byId("pictures").style.setProperty("--hue", this.#view.hue);
    byId("title").textContent = title(this.#view);
    this.lines.show(this.#view);
    this.heatMap.show(this.#view);
    if (!onlyView) this.overview.show(this.#attention.overview(this.#chosen));
    this.overview.choose(this.#chosen);
    this.#followed = null;
    this.#follow(this.#pinned ?? {});
  }

  #follow(place) {
    if (isSame(place, this.#followed)) return;
    this.#followed = place;
    this.lines.follow(place);
    this.heatMap.follow(place);
    byId("caption").replaceChildren(...caption(this.#view, place));
  }

  /** Stay with a word, or leave it if it was stayed with. */
  #pin(place) {
    const same = isSame(place, this.#pinned);
    this.#pinned = same ? null : place;
    byId("attention").classList.toggle("pinned", !same);
    this.#follow(same ? {} : place);
  }
}

const isSame = (place, other) =>
  other !== null && place.row === other.row && place.column === other.column;
