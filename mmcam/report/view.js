// The page itself. All texts reach it as text nodes and attributes, never as HTML.

const index = JSON.parse(document.getElementById("index").textContent);
const tables = Object.fromEntries(Object.entries(index.colours).map(([name, text]) => [name, bytesOf(text)]));
const byId = (id) => document.getElementById(id);
const siblings = new Map();
index.pictures.forEach((picture, entry) => {
  if (picture >= 0) siblings.set(picture, [...(siblings.get(picture) ?? []), entry]);
});
const EVERYWHERE = ["jet"]; // laid over the whole picture, as in the papers; others over the picture in grey
const FEW = 4; // so few need no search: each is large, and shows a map at once
const opacityOf = (colours) => (EVERYWHERE.includes(colours) ? 0.5 : 0.85);
const looks = { method: 0, colours: Object.keys(tables)[0], opacity: opacityOf(Object.keys(tables)[0]), scale: "own" };
const state = { query: { ...EVERYTHING }, chosen: [], page: 0, many: 24, opened: -1 };
let repaint = []; // of all maps that can be seen, for when colours or method change
let repaintOpened = [];

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

/** The row to show at once: the one that the filter is about; of few entries the first answer, or the longest word. */
function wanted(entry) {
  const { word, only } = state.query;
  if (word.trim() || (only && only !== "missing")) return rowsOf(index, entry, state.query)[0] ?? -1;
  if (index.ids.length > FEW || !index.words[entry].length) return -1;
  if (index.answers) return 0;
  const lengths = index.words[entry].map((each) => index.vocabulary[each].length);
  return lengths.indexOf(Math.max(...lengths));
}

function card(entry) {
  const maps = island(`maps-${entry}`);
  const picture = index.pictures[entry] >= 0 ? island(`picture-${index.pictures[entry]}`) : null;
  const { box, canvas } = view(entry, maps, picture);
  const line = make("p", { class: "line told" });
  const held = wanted(entry) < 0 && !picture && index.words[entry].length ? 0 : wanted(entry);
  const { group, again, heard } = wordButtons(entry, maps, picture, canvas, line, held);
  repaint.push(again);
  const name = make("button", { type: "button", class: "name", "aria-haspopup": "dialog" }, index.ids[entry]);
  name.addEventListener("click", () => open(entry));
  box.addEventListener("click", () => open(entry));
  const texts = make("div", { class: "texts" }, make("h3", { class: "card-name" }, name));
  if (index.prompts[entry]) texts.append(make("p", { class: "prompt" }, index.prompts[entry]));
  texts.append(group, line, ...heard, ...remarks(entry, maps));
  return make("li", { id: `card-${entry}`, "data-entry": entry }, box, texts);
}

/** Show the chosen page of what passes the filters. */
function showPage() {
  const last = Math.max(0, Math.ceil(state.chosen.length / state.many) - 1);
  state.page = Math.min(Math.max(state.page, 0), last);
  const shown = state.chosen.slice(state.page * state.many, (state.page + 1) * state.many);
  repaint = [];
  byId("cards").replaceChildren(...shown.map(card));
  byId("page").value = state.page + 1;
  byId("page").max = last + 1;
  byId("of").textContent = `of ${last + 1}`;
  byId("earlier").disabled = state.page === 0;
  byId("later").disabled = state.page === last;
  byId("pages").hidden = last === 0;
}

/** Read the filters and show what passes them. */
function search() {
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  state.query = {
    text: byId("search").value,
    word: byId("word").value,
    answer: byId("answer").value,
    low: number("low"),
    high: number("high"),
    right: byId("right").value,
    only: byId("only").value,
    sort: byId("sort").value,
    descending: byId("descending").checked,
  };
  state.chosen = choose(index, state.query);
  state.page = 0;
  byId("clear").hidden = Object.keys(EVERYTHING).every((name) => state.query[name] === EVERYTHING[name]);
  const things = index.prompts.some(Boolean) ? "entries" : "pictures";
  byId("count").textContent = `${state.chosen.length} of ${index.ids.length} ${things}`;
  showPage();
}

/** Open one with all its maps. */
function open(entry) {
  const dialog = byId("one");
  const maps = island(`maps-${entry}`);
  const picture = index.pictures[entry] >= 0 ? island(`picture-${index.pictures[entry]}`) : null;
  const { box, canvas } = view(entry, maps, picture);
  const line = make("p", { class: "line told", role: "status" });
  const first = index.words[entry].length ? Math.max(wanted(entry), 0) : -1;
  const { group, again, hold, heard } = wordButtons(entry, maps, picture, canvas, line, first);
  const beside = make("div", { class: "beside" });
  if (index.prompts[entry]) beside.append(make("p", { class: "prompt" }, index.prompts[entry]));
  beside.append(group, line, ...heard, ...remarks(entry, maps));
  const others = (siblings.get(index.pictures[entry]) ?? []).filter((other) => other !== entry);
  if (others.length) {
    const list = make("ul", { class: "others" });
    for (const other of others) {
      const text = `${index.prompts[other] || index.ids[other]} → ${said(index, other)}`;
      const button = make("button", { type: "button", "data-entry": other }, text);
      button.addEventListener("click", () => open(other));
      list.append(make("li", {}, button));
    }
    beside.append(make("h3", {}, "Of the same picture"), list);
  }
  const values = Object.entries(index.columns).filter(([, column]) => column[entry] != null);
  if (values.length) {
    const list = make("dl", { class: "values" });
    for (const [name, column] of values) list.append(make("dt", {}, name), make("dd", {}, column[entry].toFixed(3)));
    beside.append(list);
  }
  const all = make("div", { class: "all" });
  repaintOpened = [again];
  if (index.words[entry].length > 1) index.words[entry].forEach((word, row) => {
    const small = view(entry, maps, picture);
    small.box.querySelector("img")?.setAttribute("alt", "");
    small.canvas.hidden = false;
    const again = () => paint(small.canvas, maps, picture, row);
    again();
    repaintOpened.push(again);
    small.box.addEventListener("click", () => hold(row));
    all.append(make("figure", {}, small.box, make("figcaption", {}, `${index.vocabulary[word]} ${signed(index.scores[entry][row])}`)));
  });
  group.addEventListener("row", (event) => [...all.children].forEach((each, row) => each.classList.toggle("held", row === event.detail)));
  again();
  byId("one-name").textContent = index.ids[entry];
  byId("one-content").replaceChildren(make("div", { class: "large" }, box, beside, all));
  state.opened = entry;
  const at = state.chosen.indexOf(entry);
  byId("before").disabled = at <= 0;
  byId("after").disabled = at < 0 || at === state.chosen.length - 1;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  const at = state.chosen.indexOf(state.opened);
  if (at < 0 || state.chosen[at + by] === undefined) return;
  open(state.chosen[at + by]);
  const active = document.activeElement;
  if (!byId("one").contains(active) || active.disabled) byId("one-name").focus(); // or keys would go nowhere
}

/** Show one part of the page. */
function select(tab) {
  for (const other of document.querySelectorAll('[role="tab"]')) {
    other.setAttribute("aria-selected", String(other === tab));
    other.setAttribute("tabindex", other === tab ? 0 : -1);
    byId(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
}

function start() {
  const marked = index.marks.some((marks) => /[^.]/.test(marks));
  for (const part of document.querySelectorAll("[data-needs]")) if (!marked) part.remove();
  for (const name of Object.keys(index.columns)) byId("sort").append(make("option", { value: `column:${name}` }, name));
  byId("right-label").hidden = !index.right.some((value) => value != null);
  byId("answer-label").hidden = !index.answers;
  byId("words").append(...common(index, false, 300).map((word) => make("option", { value: word })));
  if (index.answers) byId("answers").append(...common(index, true, 300).map((word) => make("option", { value: word })));
  byId("method-label").hidden = index.methods.length < 2;
  byId("filters").hidden = index.ids.length <= FEW;
  byId("many-label").hidden = index.ids.length <= Number(byId("many").options[0].value);
  byId("cards").classList.toggle("few", index.ids.length <= FEW);
  byId("method").append(...index.methods.map((name, number) => make("option", { value: number }, name)));
  byId("colours").append(...Object.keys(tables).map((name) => make("option", {}, name)));
  const rows = index.words.reduce((sum, words) => sum + words.length, 0);
  const pictures = new Set(index.pictures.filter((picture) => picture >= 0)).size;
  const maps = rows * index.methods.length;
  const by = index.methods.join(", ") || "no method";
  byId("summary").textContent = `${index.ids.length} explained, ${several(pictures, "picture")}, ${several(maps, "map")} by ${by}`;

  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("looks").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", search);
  byId("filters").addEventListener("reset", () => setTimeout(search));
  byId("looks").addEventListener("input", () => {
    looks.method = Number(byId("method").value || 0);
    if (looks.colours !== byId("colours").value) byId("opacity").value = opacityOf(byId("colours").value);
    looks.colours = byId("colours").value;
    looks.opacity = Number(byId("opacity").value);
    looks.scale = byId("scale").value;
    document.body.classList.toggle("other", looks.method !== 0); // signs are of the first method
    if (state.many !== Number(byId("many").value)) {
      state.many = Number(byId("many").value);
      showPage();
    }
    for (const again of [...repaint, ...repaintOpened]) again();
  });
  const turn = (page) => {
    state.page = page;
    showPage();
    byId("count").scrollIntoView();
  };
  byId("earlier").addEventListener("click", () => turn(state.page - 1));
  byId("later").addEventListener("click", () => turn(state.page + 1));
  byId("page").addEventListener("change", () => turn((Number(byId("page").value) || 1) - 1));
  for (const tab of document.querySelectorAll('[role="tab"]')) tab.addEventListener("click", () => select(tab));
  byId("tabs").addEventListener("keydown", (event) => {
    const tabs = [...document.querySelectorAll('[role="tab"]')];
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const tab = tabs[(tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length];
    select(tab);
    tab.focus();
  });
  for (const preset of document.querySelectorAll(".preset")) {
    preset.addEventListener("click", () => {
      byId("filters").reset();
      const { only, right, sort, word, descending } = preset.dataset;
      byId("only").value = only ?? "";
      byId("right").value = right ?? "";
      byId("sort").value = sort ?? "order";
      byId("word").value = word ?? "";
      byId("descending").checked = descending !== undefined;
      select(byId("tab-gallery"));
      search();
      byId("cards").focus();
    });
  }
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => byId("one").close());
  byId("one").addEventListener("keydown", (event) => {
    if (event.key === "PageUp" || event.key === "PageDown") {
      event.preventDefault();
      step(event.key === "PageUp" ? -1 : 1);
    }
  });
  byId("one").addEventListener("close", () => {
    repaintOpened = [];
    document.querySelector(`#card-${state.opened} .name`)?.focus();
  });
  const narrow = matchMedia("(max-width: 46rem)");
  const fold = () => (byId("tools").open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
  select(byId("tab-gallery"));
  search();
}

start();
