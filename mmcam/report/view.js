// The page itself: which entries are shown, one of them at large, and what can be chosen.

const siblings = new Map();
index.pictures.forEach((picture, entry) => {
  if (picture >= 0) siblings.set(picture, [...(siblings.get(picture) ?? []), entry]);
});
const FEW = 4; // so few need no search: each is large, and shows a map at once
const state = { query: { ...EVERYTHING }, chosen: [], page: 0, many: 24, opened: -1 };
let repaint = []; // of all maps that can be seen, for when colours or method change
let repaintOpened = [];

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
