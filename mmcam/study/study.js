"use strict";

// The same numbers as `mmcam.study.plan` has: a person's group, order and sides follow from the code.
const LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ";

function hashed(text) {
  let number = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) number = Math.imul(number ^ byte, 0x01000193);
  number = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  number = Math.imul(number ^ (number >>> 13), 0xc2b2ae35);
  return (number ^ (number >>> 16)) >>> 0;
}

function groupOf(study, code) {
  return hashed(`${study.id} ${code}`) % (2 * study.turns);
}

function planOf(study, code) {
  const turn = Math.floor(groupOf(study, code) / 2);
  const order = study.trials
    .map((trial) => [hashed(`${study.id} ${code} ${trial.id}`), trial])
    .sort(([a, s], [b, t]) => a - b || (s.id < t.id ? -1 : 1))
    .map(([, trial]) => trial);
  const asked = order.filter((trial) => trial.turn === turn), checks = order.filter((trial) => trial.turn < 0);
  const ends = checks.map((_, number) => Math.floor(((number + 1) * asked.length) / (checks.length + 1)));
  for (let number = checks.length - 1; number >= 0; number--) asked.splice(ends[number], 0, checks[number]);
  return asked;
}

function sidesOf(study, trial, code) {
  const exchanged = groupOf(study, code) % 2 && !(trial.turn < 0 && study.kind === "trust");
  return exchanged ? [1, 0] : [0, 1];
}

function newCode() {
  let code = "";
  while (code.length < 8) {
    const [byte] = crypto.getRandomValues(new Uint8Array(1));
    if (byte < 8 * LETTERS.length) code += LETTERS[byte % LETTERS.length];
  }
  return `${code.slice(0, 4)}-${code.slice(4)}`;
}

// As people write a code: small letters, spaces, without its dash.
function typed(text) {
  return text.toUpperCase().replace(/[^0-9A-Z]/g, "").replace(/^(.{4})(?=.)/, "$1-");
}

// Where answers go: to the server that sent the page, or into this browser until they are downloaded.
const server = {
  async post(where, content) {
    const headers = { "Content-Type": "application/json" };
    const reply = await fetch(where, { method: "POST", headers, body: JSON.stringify(content) });
    const found = await reply.json();
    if (!reply.ok) throw Object.assign(new Error(found.error), { status: reply.status });
    return found;
  },
  begin(code) {
    return this.post("api/begin", code ? { code } : {});
  },
  send(code, answer) {
    return this.post("api/answer", { code, ...answer });
  },
};

function browser(study) {
  const where = (code) => `mmcam-study-${study.id}-${code}`;
  const kept = (code) => remembered(localStorageOf(), where(code));
  return {
    answers: [],
    async begin(code) {
      if (code && !kept(code)) throw new Error("This browser holds no answers of this code.");
      this.answers = code ? JSON.parse(kept(code)) : [];
      return { code: code || newCode(), answered: this.answers.map((answer) => answer.trial) };
    },
    async send(code, answer) {
      // Another window may have answered meanwhile: what came first counts.
      this.answers = JSON.parse(kept(code) || "null") || this.answers;
      if (!this.answers.some((other) => other.trial === answer.trial)) this.answers.push(answer);
      this.kept = remember(localStorageOf(), where(code), JSON.stringify(this.answers));
    },
  };
}

// From the click that answers to the next one that counts: the second half of a double click answers nothing.
const REST = 500;

// A browser may forbid its stores to a page from the disk: then the answers live as long as the page does.
function localStorageOf() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

function remembered(store, name) {
  try {
    return store && store.getItem(name);
  } catch {
    return null;
  }
}

function remember(store, name, value) {
  try {
    store.setItem(name, value);
    return true;
  } catch {
    return false;
  }
}

function start() {
  const at = (id) => document.getElementById(id);
  const study = JSON.parse(at("study").textContent);
  const files = at("files") && JSON.parse(at("files").textContent);
  const keeper = files ? browser(study) : server;
  const session = `mmcam-study-${study.id}`;
  const choices = [...document.querySelectorAll("#choices button")];
  const scale = [...document.querySelectorAll("#scale input")];
  let code = "", left = [], total = 0, shown = null, since = 0, last = -REST, open = false, pending = null, saved = false;

  const address = (name) => (files ? files[name] : `picture/${name}`);
  const say = (id, text) => {
    at(id).textContent = text;
    at(id).hidden = !text;
  };
  const only = (id) => ["intro", "asking", "end"].forEach((name) => (at(name).hidden = name !== id));

  async function begin(given) {
    say("trouble", "");
    at("begin").disabled = at("resume").disabled = true;
    try {
      const found = await keeper.begin(given);
      code = found.code;
      remember(localStorageOf(), session, code);
      document.querySelectorAll(".code").forEach((element) => (element.textContent = code));
      const done = new Set(found.answered), all = planOf(study, code);
      total = all.length;
      left = all.filter((trial) => !done.has(trial.id));
      ask();
    } catch (error) {
      const away = error instanceof TypeError || error instanceof SyntaxError;
      say("trouble", away ? "The study cannot be reached. Please try again." : error.message);
      agreed();
    }
  }

  function figure(name, caption) {
    const box = document.createElement("figure"), image = new Image();
    image.alt = caption ? `The picture with the ${caption} program's map` : "The picture with a map in colour";
    image.src = address(name);
    box.append(image);
    if (caption) {
      const words = document.createElement("figcaption");
      words.textContent = caption;
      box.append(words);
    }
    return [box, image];
  }

  async function ask() {
    shown = left[0] || null;
    if (!shown) return finish();
    only("asking");
    open = false;
    choices.forEach((button) => (button.disabled = true));
    scale.forEach((radio) => (radio.checked = false));
    const sides = sidesOf(study, shown, code);
    const made = shown.pictures.length === 2
      ? sides.map((option, side) => figure(shown.pictures[option], side ? "right" : "left"))
      : shown.pictures.map((name) => figure(name, ""));
    at("pictures").replaceChildren(...made.map(([box]) => box));
    at("question").textContent = shown.question;
    choices.forEach((button, side) => (button.querySelector("span").textContent = shown.options[sides[side]]));
    at("progress").max = total;
    at("progress").value = total - left.length;
    at("count").textContent = `${total - left.length + 1} of ${total}`;
    say("status", "");
    at("question").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    const current = shown;
    try {
      await Promise.all(made.map(([, image]) => image.decode()));
    } catch {
      if (shown !== current) return;
      say("status", "The picture cannot be shown.");
      at("retry").hidden = false;
      return;
    }
    await new Promise((done) => setTimeout(done, last + REST - performance.now()));
    if (shown !== current) return;
    choices.forEach((button) => (button.disabled = false));
    open = true;
    since = performance.now();
    if (left[1]) left[1].pictures.forEach((name) => (new Image().src = address(name)));
  }

  async function answer(value) {
    if (!open) return;
    open = false;
    last = performance.now();
    choices.forEach((button) => (button.disabled = true));
    pending = { trial: shown.id, value, milliseconds: Math.min(3600000, Math.round(last - since)) };
    await send();
  }

  async function send() {
    at("retry").hidden = true;
    say("status", "");
    try {
      await keeper.send(code, pending);
    } catch (error) {
      // 409: kept before, as from another window.
      if (error.status !== 409) {
        say("status", error.status ? error.message : "Your answer could not be sent. Is the network there?");
        at("retry").hidden = false;
        return;
      }
    }
    pending = null;
    left.shift();
    ask();
  }

  function finish() {
    only("end");
    if (files) at("text").value = result();
    at("thanks").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function result() {
    return JSON.stringify({ study: study.id, code, answers: keeper.answers });
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([result()], { type: "application/json" }));
    link.download = `answers-${study.id}-${code}.json`;
    link.click();
    saved = true;
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  function agreed() {
    at("begin").disabled = !at("agree").checked;
    at("resume").disabled = false; // who goes on has agreed before
  }

  // Answers that only this page holds should not be lost by a slip.
  window.addEventListener("beforeunload", (event) => {
    if (files && keeper.answers.length && !keeper.kept && !saved) event.preventDefault();
  });
  at("agree").addEventListener("change", agreed);
  at("begin").addEventListener("click", () => begin(""));
  at("resume").addEventListener("click", () => begin(typed(at("code").value)));
  at("retry").addEventListener("click", () => {
    at("retry").hidden = true;
    if (pending) send();
    else ask();
  });
  choices.forEach((button) => button.addEventListener("click", () => answer(Number(button.dataset.value))));
  if (at("scale")) {
    at("scale").addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = scale.find((radio) => radio.checked);
      if (chosen) answer(Number(chosen.value));
      else say("status", "Please choose one of the five.");
    });
  }
  if (at("download")) at("download").addEventListener("click", download);
  document.addEventListener("keydown", (event) => {
    if (!open || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const number = "12345".indexOf(event.key);
    if (event.key.length !== 1 || number < 0) {
      const free = event.key === "Enter" && at("scale") && !event.target.closest("form, button");
      if (free) at("scale").requestSubmit();
      return;
    }
    if (choices[number]) answer(number);
    else if (scale[number]) {
      scale[number].checked = true;
      scale[number].focus();
    }
  });
  agreed();
  window.addEventListener("pageshow", agreed); // a browser that goes back ticks the box again by itself
  const before = remembered(localStorageOf(), session);
  if (before) {
    at("code").value = before;
    at("again").open = true;
    at("again").querySelector("summary").textContent = "You have begun before; go on where you were";
    at("begin").classList.remove("main");
    at("begin").textContent = "Begin as somebody else";
    at("resume").classList.add("main");
    at("begin").parentNode.before(at("again"));
  }
}

if (typeof document !== "undefined") start();
