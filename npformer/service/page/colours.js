// Colours of heads: each has a hue of its own, the same in every picture, and their mean has another.
// How light and how strong they are is the stylesheet’s business, as it differs in the dark.

const MEAN = 262;

/** The hue of a head, in degrees of OKLCH; of "mean" where `head` is no number. */
export const hue = (head, heads) =>
  typeof head === "number" ? Math.round(MEAN + (360 * (head + 1)) / (heads + 1)) % 360 : MEAN;

/** The ink of a hue as the stylesheet has it at this moment. */
export function ink(degrees) {
  const style = getComputedStyle(document.documentElement).getPropertyValue("--ink-of-heads");
  const [lightness, chroma] = style.match(/[\d.]+/g);
  return `oklch(${lightness} ${chroma} ${degrees})`;
}

const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

/** A colour’s red, green and blue, 0 to 255. */
export function rgb(colour) {
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data.subarray(0, 3);
}

/** How much ink a weight gets: small ones can still be told from none. */
export const strength = (weight) => Math.min(1, weight) ** 0.65;
