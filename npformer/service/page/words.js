// Pieces of the vocabulary, and the words that they make.

const SPACE = "\u2581"; // SentencePiece’s mark: a word begins here
const MARKS = new Map([["<s>", "start"], ["</s>", "end"], ["<unk>", "unknown"]]);
const BYTE = /^<0x([0-9A-F]{2})>$/;
// Scripts that put no spaces between words: there a piece is as near to a word as we come.
const UNSPACED = /^[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}]/u;
const PUNCTUATION = /^\u2581?[\p{P}\p{S}]+$/u;

/** A word: its text, the places of its pieces, and whether it is a mark, as the sentence’s end. */
const word = (pieces, places) => ({
  text: textOf(places.map((place) => pieces[place])),
  places,
  mark: places.length === 1 && MARKS.has(pieces[places[0]]),
});

/** Each piece alone, as the vocabulary has it. */
export const single = (pieces) =>
  pieces.map((piece, place) => ({ ...word(pieces, [place]), text: MARKS.get(piece) ?? piece }));

/**
 * The words that pieces join to. Words are what spaces separate, or pieces where the script has
 * none; marks and the punctuation at either end of a word stand alone.
 */
export function joined(pieces) {
  const runs = [];
  let begun = false; // whether the run has more than the mark of a space
  pieces.forEach((piece, place) => {
    const alone = MARKS.has(piece);
    const before = place > 0 && MARKS.has(pieces[place - 1]);
    const begins = begun && (piece.startsWith(SPACE) || UNSPACED.test(piece));
    if (!runs.length || alone || before || begins) {
      runs.push([]);
      begun = false;
    }
    runs.at(-1).push(place);
    begun ||= piece !== SPACE;
  });
  return runs.flatMap((run) => peeled(pieces, run)).map((places) => word(pieces, places));
}

function peeled(pieces, run) {
  const isPunctuation = (place) => PUNCTUATION.test(asciiOf(pieces[place]));
  let first = run.findIndex((place) => pieces[place] !== SPACE && !isPunctuation(place));
  if (first < 0) return [run];
  // A lone mark of a space belongs to what follows it.
  while (first > 0 && pieces[run[first - 1]] === SPACE) first--;
  let last = run.length;
  while (isPunctuation(run[last - 1])) last--;
  const alone = (places) => places.map((place) => [place]);
  return [...alone(run.slice(0, first)), run.slice(first, last), ...alone(run.slice(last))];
}

function textOf(pieces) {
  if (pieces.length === 1 && MARKS.has(pieces[0])) return MARKS.get(pieces[0]);
  const found = [];
  let bytes = [];
  const flush = () => {
    if (bytes.length) found.push(decoded(bytes));
    bytes = [];
  };
  for (const piece of pieces) {
    const byte = BYTE.exec(piece);
    if (byte) {
      bytes.push(Number.parseInt(byte[1], 16));
    } else {
      flush();
      found.push(piece);
    }
  }
  flush();
  const text = found.join("").replaceAll(SPACE, " ").trim();
  return text || "␣";
}

/** A piece, or the character that it is if it is a byte of ASCII. */
function asciiOf(piece) {
  const byte = BYTE.exec(piece);
  return byte && byte[1] < "80" ? String.fromCharCode(Number.parseInt(byte[1], 16)) : piece;
}

/** Bytes as the characters that they are, or as numbers where they are no UTF-8. */
function decoded(bytes) {
  const text = new TextDecoder().decode(new Uint8Array(bytes));
  if (!text.includes("\ufffd") && !/^\p{C}*$/u.test(text)) return text;
  return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}
