// The arrow keys.

const STEPS = {
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  Home: [0, -Infinity], End: [0, Infinity], PageUp: [-Infinity, 0], PageDown: [Infinity, 0],
};

const within = (place, count) => Math.max(0, Math.min(count - 1, place));

/** Where a key leads from [row, column] in a table; nothing if it is no arrow. */
export function moved({ key, ctrlKey, altKey, metaKey }, [row, column], rows, columns) {
  if (!(key in STEPS) || ctrlKey || altKey || metaKey) return undefined;
  const [down, right] = STEPS[key];
  return [within(row + down, rows), within(column + right, columns)];
}

/** Let Tab stop at one of several elements only: at the one that had the focus last. */
export function stopAt(elements, chosen) {
  for (const each of elements) each.tabIndex = each === chosen ? 0 : -1;
}
