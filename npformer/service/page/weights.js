// Matrices of attention weights. A row is the word that looks; its weights sum to 1 over the
// columns, the words that it looks at.

export class Matrix {
  constructor(rows, columns, values = new Float32Array(rows * columns)) {
    Object.assign(this, { rows, columns, values });
  }

  static of(nested) {
    const made = new Matrix(nested.length, nested[0]?.length ?? 0);
    nested.forEach((row, i) => made.values.set(row, i * made.columns));
    return made;
  }

  static mean(matrices) {
    const made = new Matrix(matrices[0].rows, matrices[0].columns);
    for (const { values } of matrices) {
      for (let i = 0; i < values.length; i++) made.values[i] += values[i] / matrices.length;
    }
    return made;
  }

  at(row, column) {
    return this.values[row * this.columns + column];
  }

  row(row) {
    return [...this.values.subarray(row * this.columns, (row + 1) * this.columns)];
  }

  column(column) {
    return Array.from({ length: this.rows }, (_, row) => this.at(row, column));
  }

  /**
   * The weights between words: what a word looks at is the mean over its pieces, and what it is
   * looked at the sum, so that rows still sum to 1.
   */
  between(rows, columns) {
    const made = new Matrix(rows.length, columns.length);
    const columnOf = new Int32Array(this.columns);
    columns.forEach(({ places }, column) => places.forEach((place) => (columnOf[place] = column)));
    rows.forEach(({ places }, row) => {
      for (const place of places) {
        for (let j = 0; j < this.columns; j++) {
          made.values[row * made.columns + columnOf[j]] += this.at(place, j) / places.length;
        }
      }
    });
    return made;
  }

  /** How many words a row looks at: exp of its entropy, the mean over rows. */
  get spread() {
    let total = 0;
    for (let row = 0; row < this.rows; row++) {
      let entropy = 0;
      for (const weight of this.row(row)) if (weight > 0) entropy -= weight * Math.log(weight);
      total += Math.exp(entropy);
    }
    return total / this.rows;
  }
}

/** The places of the largest values, largest first, of those that are at least `least`. */
export const largest = (values, count, least) =>
  values
    .map((value, place) => ({ value, place }))
    .filter(({ value }) => value >= least)
    .sort((a, b) => b.value - a.value)
    .slice(0, count);

/** A weight as the reader sees it. */
export function percent(weight) {
  if (weight >= 0.995) return "100 %";
  return weight < 0.01 && weight > 0 ? "< 1 %" : `${Math.round(weight * 100)} %`;
}
