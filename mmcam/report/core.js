"use strict";
// What the page computes, without the page: tests run these functions in node.

const FLAGS = ["", "zero", "negative", "non-finite"];
const MARKS = { "+": "hit", "-": "miss", "?": "absent", ".": "" };

/** Decode base64 into bytes. */
function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** For each of so many pixels between two edges (shares of the side): both cells it lies between and the second's share; null outside. */
function between(cells, near, far, pixels) {
  const places = [];
  for (let i = 0; i < pixels; i++) {
    const at = ((i + 0.5) / pixels - near) / (far - near);
    if (at < 0 || at > 1) {
      places.push(null);
      continue;
    }
    const place = Math.min(Math.max(at * cells - 0.5, 0), cells - 1);
    const first = Math.floor(place);
    places.push([first, Math.min(first + 1, cells - 1), place - first]);
  }
  return places;
}

/** A map at the picture's size, bilinearly with pixel centres at halves, 0 outside the window (shares: top, left, bottom, right). */
function upsample(map, shape, window, width, height) {
  const [rows, columns] = shape;
  const down = between(rows, window[0], window[2], height);
  const across = between(columns, window[1], window[3], width);
  const large = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    if (!down[y]) continue;
    const [above, below, fall] = down[y];
    for (let x = 0; x < width; x++) {
      if (!across[x]) continue;
      const [left, right, step] = across[x];
      const upper = map[above * columns + left] * (1 - step) + map[above * columns + right] * step;
      const lower = map[below * columns + left] * (1 - step) + map[below * columns + right] * step;
      large[y * width + x] = upper * (1 - fall) + lower * fall;
    }
  }
  return large;
}

/** Colours of values 0 to 255 times a gain, by a table of 256; opaque, or the more the greater the value, as 1 − (1 − v)². */
function coloured(values, table, gain, fading = false) {
  const pixels = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    const value = (values[i] / 255) * gain;
    const step = Math.min(Math.floor(value * 256), 255) * 3;
    pixels[4 * i] = table[step];
    pixels[4 * i + 1] = table[step + 1];
    pixels[4 * i + 2] = table[step + 2];
    pixels[4 * i + 3] = fading ? Math.round(255 * value * (2 - value)) : 255;
  }
  return pixels;
}

/** The share of the picture's greatest peak that a map's own peak has; 1 where each is scaled by its own. */
function gainOf(peaks, row, scale) {
  const most = Math.max(...peaks);
  return scale === "joint" && most > 0 ? peaks[row] / most : 1;
}

/** What each word heard adds to a row's score, from -1 to 1: of the greatest of the row, or of all rows. */
function heardOf(scores, row, scale) {
  const most = Math.max(...(scale === "joint" ? scores.flat() : scores[row]).map((value) => Math.abs(value ?? 0)));
  return scores[row].map((value) => (most > 0 ? (value ?? 0) / most : 0));
}

/** Numbers of an entry's words that a filter means; all if it names none. */
function rowsOf(index, entry, query) {
  const word = query.word.trim().toLowerCase();
  const flags = index.flags[entry];
  const marks = index.marks[entry];
  const kind = query.only === "missing" ? "" : query.only;
  return index.words[entry].map((_, row) => row).filter((row) => {
    if (word && !sameWord(index, index.words[entry][row], word)) return false;
    if (!kind) return true;
    if (kind === "flagged") return flags[row] !== "0";
    return FLAGS[Number(flags[row])] === kind || MARKS[marks[row]] === kind;
  });
}

/** Whether a word is the one looked for; the beginning of one where there is no such word. */
function sameWord(index, number, word) {
  index.lower ??= index.vocabulary.map((each) => each.toLowerCase());
  index.whole ??= new Set(index.lower);
  return index.whole.has(word) ? index.lower[number] === word : index.lower[number].startsWith(word);
}

/** What an entry says, as one text. */
function said(index, entry) {
  return index.words[entry].map((number) => index.vocabulary[number]).join(index.separator);
}

/** The score of a word where one is looked for; else of the first answer, or the mean of a sentence's words. */
function scoreOf(index, entry, query) {
  const rows = query.word.trim() ? rowsOf(index, entry, { ...query, only: "" }) : index.answers ? [0] : null;
  const scores = (rows ? rows.map((row) => index.scores[entry][row]) : index.scores[entry]).filter((score) => score != null);
  if (!scores.length) return null;
  return rows ? Math.max(...scores) : scores.reduce((sum, score) => sum + score, 0) / scores.length;
}

/** The share of an entry's judged words whose maps point at what they mean. */
function pointingOf(index, entry) {
  const judged = [...index.marks[entry]].filter((mark) => mark === "+" || mark === "-");
  return judged.length ? judged.filter((mark) => mark === "+").length / judged.length : null;
}

function verdictOf(index, entry) {
  const value = index.right.length ? index.right[entry] : null;
  return value == null ? "unknown" : value ? "right" : "wrong";
}

/** Whether an entry passes all filters. */
function matches(index, entry, query) {
  index.texts ??= index.ids.map((id, each) => `${id}\n${index.prompts[each]}\n${said(index, each)}`.toLowerCase());
  const terms = query.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!terms.every((term) => index.texts[entry].includes(term))) return false;
  const answer = query.answer.trim().toLowerCase();
  if (answer && !(index.words[entry].length && sameWord(index, index.words[entry][0], answer))) return false;
  if (query.right && verdictOf(index, entry) !== query.right) return false;
  if (query.only === "missing" && index.pictures[entry] >= 0) return false;
  const byWord = query.word.trim() || (query.only && query.only !== "missing");
  if (byWord && !rowsOf(index, entry, query).length) return false;
  if (query.low == null && query.high == null) return true;
  const score = scoreOf(index, entry, query);
  return score != null && (query.low == null || score >= query.low) && (query.high == null || score <= query.high);
}

/** What entries are sorted by; null comes last, whichever way. */
function keyOf(index, entry, query) {
  if (query.sort === "score") return scoreOf(index, entry, query);
  if (query.sort === "words") return index.words[entry].length;
  if (query.sort === "pointing") return pointingOf(index, entry);
  if (query.sort.startsWith("column:")) return index.columns[query.sort.slice(7)][entry];
  return entry;
}

/** Numbers of the entries that pass, in order; of equal ones the earlier comes first. */
function choose(index, query) {
  const found = [];
  for (let entry = 0; entry < index.ids.length; entry++) if (matches(index, entry, query)) found.push(entry);
  const sign = query.descending ? -1 : 1;
  if (query.sort === "name") {
    const order = new Intl.Collator("en", { numeric: true });
    return found.sort((a, b) => sign * order.compare(index.ids[a], index.ids[b]) || a - b);
  }
  const keys = new Map(found.map((entry) => [entry, keyOf(index, entry, query)]));
  return found.sort((a, b) => {
    const [one, two] = [keys.get(a), keys.get(b)];
    if (one == null || two == null) return (one == null) - (two == null) || a - b;
    return sign * (one - two) || a - b;
  });
}

/** Words by how many entries have them (of answers: as the first), the most common first. */
function common(index, first, most) {
  const times = new Map();
  for (const words of index.words) {
    for (const word of first ? words.slice(0, 1) : new Set(words)) times.set(word, (times.get(word) ?? 0) + 1);
  }
  const order = [...times].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  return order.slice(0, most).map(([word]) => index.vocabulary[word]);
}

const EVERYTHING = { text: "", word: "", answer: "", low: null, high: null, right: "", only: "", sort: "order", descending: false };
