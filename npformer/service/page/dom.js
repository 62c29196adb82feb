// Building elements. Text is always set as text, never as markup: it may be anybody's.

/** An element with attributes, data (`data: {…}`), listeners (`on: {…}`) and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (key === "data") {
      Object.assign(made.dataset, value);
    } else if (value === true) {
      made.setAttribute(key, "");
    } else if (value !== false && value != null) {
      made.setAttribute(key, value);
    }
  }
  made.append(...children);
  return made;
}

/** The element of the page that has this id. */
export const byId = (id) => document.getElementById(id);

/** A radio button with its label; `group` is what the buttons of a group have in common. */
export function radio(group, value, label, { checked = false, title = null, chosen }) {
  const input = element("input", { type: "radio", name: group, value, checked });
  input.addEventListener("change", () => chosen(value));
  return element("label", { class: "radio", title }, input, element("span", {}, ...[label].flat()));
}

/** Call `draw` now and whenever the size of an element, or of a pixel on the screen, changes. */
export function whenResized(box, draw) {
  new ResizeObserver(draw).observe(box);
  const watch = () => {
    const pixel = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
    pixel.addEventListener("change", () => { draw(); watch(); }, { once: true });
  };
  watch();
}
