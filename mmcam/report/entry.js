// An entry: its picture, the maps over it, its words. All texts reach the page as text nodes and attributes, never as HTML.

const index = JSON.parse(document.getElementById("index").textContent);
const tables = Object.fromEntries(Object.entries(index.colours).map(([name, text]) => [name, bytesOf(text)]));
const byId = (id) => document.getElementById(id);
const EVERYWHERE = ["jet"]; // laid over the whole picture, as in the papers; others over the picture in grey
const opacityOf = (colours) => (EVERYWHERE.includes(colours) ? 0.5 : 0.85);
const looks = { method: 0, colours: Object.keys(tables)[0], opacity: opacityOf(Object.keys(tables)[0]), scale: "own" };

/** Make an element; texts among its children become text nodes. */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Decode an island; only what is shown is. */
function island(id) {
  return JSON.parse(byId(id).textContent);
}

function signed(score) {
  return score == null ? "not finite" : score.toFixed(2).replace("-", "−");
}

function several(number, name) {
  return `${number} ${name}${number === 1 ? "" : "s"}`;
}

/** With its sign, also in front of what is positive. */
function plus(value) {
  return value > 0 ? `+${signed(value)}` : signed(value);
}

/** The two numbers of pixels that a picture or, without one, a map is drawn with. */
function extent(maps, picture) {
  if (picture) return [picture.width, picture.height];
  const factor = Math.min(1, 224 / Math.max(...maps.size));
  return [Math.max(1, Math.round(maps.size[1] * factor)), Math.max(1, Math.round(maps.size[0] * factor))];
}

/** Draw the map of a row on a canvas. */
function paint(canvas, maps, picture, row) {
  const [width, height] = extent(maps, picture);
  const one = maps.maps[looks.method];
  one.bytes ??= bytesOf(one.places);
  const cells = one.shape[0] * one.shape[1];
  const large = upsample(one.bytes.subarray(row * cells, (row + 1) * cells), one.shape, maps.window, width, height);
  const fading = Boolean(picture) && !EVERYWHERE.includes(looks.colours);
  const pixels = coloured(large, tables[looks.colours], gainOf(one.peaks, row, looks.scale), fading);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  canvas.style.opacity = picture ? looks.opacity : 1;
  canvas.parentElement.classList.toggle("grey", fading);
  canvas.dataset.row = row;
}

/** A picture with a place for a map over it. */
function view(entry, maps, picture) {
  const [width, height] = extent(maps, picture);
  const canvas = make("canvas", { "aria-hidden": "true", hidden: true });
  const box = make("div", { class: "view" });
  box.style.aspectRatio = `${width} / ${height}`;
  if (picture) {
    const alt = `Picture ${index.ids[entry]}${said(index, entry) ? `: ${said(index, entry)}` : ""}`;
    box.append(make("img", { src: `data:image/jpeg;base64,${picture.jpeg}`, alt, width, height }));
  }
  box.append(canvas);
  return { box, canvas };
}

/** In words what a row's map is. */
function told(entry, maps, row) {
  const flag = FLAGS[Number(maps.maps[looks.method].flags[row])];
  const mark = MARKS[index.marks[entry][row]];
  const parts = [`${index.vocabulary[index.words[entry][row]]}: score ${signed(index.scores[entry][row])}`];
  if (flag) parts.push(`the map is ${flag}${flag === "negative" ? " everywhere" : ""}`);
  if (looks.method === 0 && mark === "hit") parts.push("points at it");
  if (looks.method === 0 && mark === "miss") parts.push("points elsewhere");
  if (mark === "absent") parts.push(index.answers && index.prompts[entry] ? "about what is not there" : "not in the picture");
  if (maps.seen?.[row] != null) parts.push(`${Math.round(100 * maps.seen[row])} % seen`);
  return parts.join(", ");
}

/** The words of an entry as buttons, which show their maps on a canvas. */
function wordButtons(entry, maps, picture, canvas, line, held) {
  const heard = heardLine(maps);
  const group = make("div", { class: "words", role: "group", "aria-label": index.answers ? "Answers" : "Words" });
  const signs = { hit: "●", miss: "○", absent: "∅" };
  const buttons = index.words[entry].map((word, row) => {
    const mark = MARKS[index.marks[entry][row]];
    const button = make("button", { type: "button", "data-row": row, "aria-pressed": "false", tabindex: row ? -1 : 0 }, index.vocabulary[word]);
    if (mark) button.append(" ", make("span", { class: `mark ${mark}`, "aria-hidden": "true" }, signs[mark]));
    if (index.answers) button.append(" ", make("span", { class: "score" }, signed(index.scores[entry][row])));
    return button;
  });
  let fixed = -1;
  const show = (row) => {
    canvas.hidden = row < 0;
    if (row >= 0) paint(canvas, maps, picture, row);
    else canvas.parentElement.classList.remove("grey");
    line.textContent = row >= 0 ? told(entry, maps, row) : "";
    heard.colour(row);
    group.dispatchEvent(new CustomEvent("row", { detail: row }));
    buttons.forEach((button, each) => {
      button.setAttribute("aria-pressed", String(each === row));
      button.setAttribute("aria-label", told(entry, maps, each)); // by the chosen method
    });
  };
  const hold = (row) => {
    fixed = row;
    show(row);
  };
  buttons.forEach((button, row) => {
    button.addEventListener("mouseenter", () => show(row));
    button.addEventListener("mouseleave", () => show(fixed));
    button.addEventListener("focus", () => button.matches(":focus-visible") && show(row));
    button.addEventListener("blur", () => show(fixed));
    button.addEventListener("click", () => hold(fixed === row ? -1 : row));
  });
  group.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (to !== undefined && at >= 0) {
      event.preventDefault();
      buttons.forEach((button, each) => button.setAttribute("tabindex", each === to ? 0 : -1));
      buttons[to].focus();
      show(to);
    } else if (event.key === "Escape" && fixed >= 0) {
      event.preventDefault();
      hold(-1);
    }
  });
  group.append(...buttons);
  hold(held);
  const again = () => show(buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true"));
  return { group, again, hold, heard: heard.line };
}

/** The words that the model heard, and how to colour them by what they add to a row's score; no line where none is known. */
function heardLine(maps) {
  if (!maps.heard) return { line: [], colour: () => {} };
  const line = make("p", { class: "heard" }, make("span", { class: "label" }, "Heard "));
  const spans = maps.heard.map((word) => make("span", { class: "word" }, word));
  for (const span of spans) line.append(span, " ");
  const colour = (row) => {
    const much = row < 0 ? [] : heardOf(maps.heard_scores, row, looks.scale);
    spans.forEach((span, at) => {
      const value = much[at] ?? 0;
      span.classList.toggle("for", value > 0);
      span.classList.toggle("against", value < 0);
      span.style.setProperty("--much", `${Math.round(Math.abs(value) * 100)}%`);
      if (row < 0) delete span.dataset.value;
      else span.dataset.value = span.title = plus(maps.heard_scores[row][at]);
    });
  };
  return { line: [line], colour };
}

/** Lines about an entry under its words. */
function remarks(entry, maps) {
  const lines = [];
  const verdict = verdictOf(index, entry);
  const line = make("p", { class: "line" });
  if (verdict !== "unknown") {
    const text = verdict === "right" ? "✓ correct" : "✗ wrong";
    line.append(make("span", { class: `verdict ${verdict}` }, text), " ");
  }
  if (maps.given) line.append(make("span", { class: "given" }, `People: ${maps.given.slice(0, 5).join(" | ")}`));
  if (line.childNodes.length) lines.push(line);
  if (maps.missing) lines.push(make("p", { class: "line missing" }, `No picture: ${maps.missing}`));
  return lines;
}
