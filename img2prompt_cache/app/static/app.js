"use strict";
// Everything that comes from prompts, names or the app is written with textContent, never as HTML.
const $ = (id) => document.getElementById(id);
const SIDE_LARGE = 1024, AT_ONCE = 4, TOP_K = 5, ALIKE = 6, PAGE = 60;
const state = { runs: null, items: [], page: { query: "", offset: 0, total: 0 }, active: 0, round: 0 };

const make = (tag, options = {}, ...inside) => {
  const { on = {}, ...rest } = options;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...inside);
  return element;
};
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const size = (bytes) => `${Math.round(bytes / (1 << 20))} MiB`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Asking the app

class Gone extends Error {}
class Locked extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    $("gone").hidden = false;
    throw new Gone("The app does not answer.");
  }
  $("gone").hidden = true;
  if (answer.status === 401) {
    show("locked");
    throw new Locked("A token is needed.");
  }
  return answer;
}

async function askJson(path, options) {
  const answer = await ask(path, options);
  const data = await answer.json().catch(() => ({ detail: `The app answered with status ${answer.status}.` }));
  if (!answer.ok && !data.results) {
    const error = new Error(typeof data.detail === "string" ? data.detail : "The app refused the request.");
    error.status = answer.status;
    error.after = Number(answer.headers.get("Retry-After")) || 2;
    throw error;
  }
  return data;
}

/** Ask again while the app is busy. */
async function askPatiently(path, options, waiting = () => {}, wanted = () => true) {
  for (;;) {
    try {
      return await askJson(path, options);
    } catch (error) {
      if (error.status !== 503 || !wanted()) throw error;
      waiting(error.message);
      await sleep(Math.min(error.after, 10));
    }
  }
}

// What several views show

const score = (value) => {
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  bar.setAttribute("viewBox", "0 0 100 4");
  bar.setAttribute("preserveAspectRatio", "none");
  rect.setAttribute("width", Math.max(0, Math.min(1, value)) * 100);
  rect.setAttribute("height", 4);
  bar.append(rect);
  return make("span", { className: "score", title: "Cosine similarity" }, value.toFixed(3), make("i", {}, bar));
};

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Not a secure context, or not allowed: the old way.
    const field = make("textarea", { value: text, className: "hidden" });
    document.body.append(field);
    field.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not allowed";
    field.remove();
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1600);
}

const promptLine = (prompt, cosine) => {
  const text = make("p", { className: "clamp", textContent: prompt, dir: "auto" });
  text.addEventListener("click", () => text.classList.toggle("whole"));
  const button = make("button", { type: "button", textContent: "Copy", on: { click: (event) => copy(prompt, event.target) } });
  button.setAttribute("aria-label", `Copy the prompt: ${prompt.slice(0, 80)}`);
  return make("div", { className: "line" }, cosine === null ? "" : score(cosine), text, button);
};

const thumbnail = (row, alt, side = 256) => {
  const image = make("img", { src: `/pictures/${row}?side=${side}`, alt, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("span", { className: "missing", textContent: "No picture: its source is gone, or it has changed." })));
  return image;
};

const tile = (picture, ...notes) => {
  const button = make("button", { type: "button", className: "tile", on: { click: () => enlarge(picture) } },
    thumbnail(picture.row, picture.prompt.slice(0, 200) || picture.id), ...notes,
    make("span", { className: "caption", textContent: picture.prompt || "no prompt", dir: "auto" }));
  button.setAttribute("aria-label", `Enlarge ${picture.id}: ${picture.prompt.slice(0, 120)}`);
  return make("li", {}, button);
};

function enlarge(picture) {
  $("large-picture").replaceChildren(thumbnail(picture.row, picture.prompt.slice(0, 200) || picture.id, SIDE_LARGE));
  $("large-id").textContent = picture.id;
  $("large-prompt").replaceChildren(picture.prompt ? promptLine(picture.prompt, null) : "");
  $("large-prompt").querySelector(".clamp")?.classList.add("whole");
  $("large").showModal();
}
$("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });

// Predicting

function add(files) {
  if (!state.runs || !files.length) return;
  location.hash = "#predict";
  for (const file of files) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const image = make("img", { alt: `The image ${file.name}`, src: URL.createObjectURL(file) });
    image.addEventListener("error", () => image.replaceWith(make("span", { className: "missing", textContent: "This browser cannot show it." })));
    card.querySelector(".shown").append(image);
    card.querySelector("h2").textContent = file.name;
    const item = { file, card, status: "waiting", result: null, url: image.src };
    state.items.unshift(item);
    $("results").prepend(card);
    draw(item);
  }
  work();
}

function draw(item) {
  const body = item.card.querySelector(".body");
  item.card.setAttribute("aria-busy", String(item.status === "waiting"));
  if (item.status === "waiting") {
    body.replaceChildren(make("p", { className: "faint" }, make("span", { className: "spinner small" }), item.note || "Waiting for the model …"));
  } else if (item.status === "error") {
    body.replaceChildren(make("p", { className: "note bad", textContent: item.note }),
      make("button", { type: "button", textContent: "Try again", on: { click: () => { item.status = "waiting"; item.note = ""; draw(item); work(); } } }));
  } else {
    body.replaceChildren(...described(item.result));
  }
  const done = state.items.filter((each) => each.status === "done").length;
  const failed = state.items.filter((each) => each.status === "error").length;
  $("count").textContent = `${done} of ${plural(state.items.length, "image")}${failed ? `, ${failed} could not be used` : ""}`;
  $("tools").hidden = !state.items.length;
  $("predict").classList.toggle("some", state.items.length > 0);
  for (const id of ["npy", "json"]) $(id).disabled = !done;
}

function described(result) {
  const found = [];
  if (typeof result.expected === "number") {
    found.push(make("p", { className: "expected", title: "What this run expects the cosine between its prediction and the true prompt to be." },
      "Expected cosine with the true prompt", make("b", { textContent: result.expected.toFixed(2) })));
  }
  if (typeof result.own_prompt === "string") {
    found.push(make("p", { className: "note", textContent: `This picture is in the cache; its own prompt is: ${result.own_prompt}` }));
  }
  if (result.composed) {
    found.push(make("div", { className: "composed" }, make("h3", { textContent: "Composed prompt" }), promptLine(result.composed.prompt, result.composed.cosine)));
  }
  found.push(make("h3", { textContent: "Nearest known prompts", title: "Ranked with a correction for prompts that are near to everything, so that the cosines need not descend." }));
  found.push(make("ol", { className: "prompts" }, ...result.prompts.map((each) => make("li", {}, promptLine(each.prompt, each.cosine)))));
  if (result.pictures?.length) {
    found.push(make("h3", { textContent: "Pictures of the cache that this run sees as most alike" }));
    found.push(make("ul", { className: "alike" }, ...result.pictures.map((each) => tile(each, make("span", { className: "cosines" }, make("b", { textContent: each.cosine.toFixed(3) }))))));
  }
  return found;
}

function work() {
  while (state.active < AT_ONCE) {
    const item = state.items.findLast((each) => each.status === "waiting" && !each.busy);
    if (!item) return;
    item.busy = true;
    state.active += 1;
    predict(item).finally(() => { item.busy = false; state.active -= 1; work(); });
  }
}

async function predict(item) {
  const round = state.round;
  const limits = state.runs.limits;
  const current = () => state.items.includes(item) && state.round === round;
  try {
    if (item.file.size > limits.file_bytes) throw new Error(`Too large: ${size(item.file.size)}, at most ${size(limits.file_bytes)} are taken.`);
    const form = new FormData();
    form.append("images", item.file, item.file.name);
    const compose = $("compose").checked ? "&compose=true" : "";
    const query = `run=${encodeURIComponent($("run").value)}&top_k=${TOP_K}&pictures=${ALIKE}&embeddings=true${compose}`;
    const waiting = (text) => { item.note = `${text[0].toUpperCase()}${text.slice(1)} …`; draw(item); };
    const answer = await askPatiently(`/predict?${query}`, { method: "POST", body: form }, waiting, current);
    const result = answer.results[0];
    if (result.error) throw new Error(result.error[0].toUpperCase() + result.error.slice(1));
    if (!current()) return;
    Object.assign(item, { status: "done", result, note: "" });
  } catch (error) {
    if (!current()) return;
    Object.assign(item, { status: "error", note: error.message });
  }
  draw(item);
}

function again() {
  state.round += 1;
  for (const item of state.items) {
    Object.assign(item, { status: "waiting", note: "", result: null });
    draw(item);
  }
  work();
}

function save(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const usable = () => state.items.filter((each) => each.status === "done").reverse();

function saveNpy() {
  const items = usable();
  const width = items[0].result.embedding.length;
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${items.length}, ${width}), }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64;
  const bytes = new Uint8Array(length + 4 * items.length * width);
  const view = new DataView(bytes.buffer);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0]);
  view.setUint16(8, length - 10, true);
  bytes.set(new TextEncoder().encode(text.padEnd(length - 11, " ") + "\n"), 10);
  items.forEach((each, row) => each.result.embedding.forEach((value, at) => view.setFloat32(length + 4 * (row * width + at), value, true)));
  save("embeddings.npy", new Blob([bytes]));
}

function saveJson() {
  const images = usable().map(({ file, result }) => ({ name: file.name, embedding: result.embedding, prompts: result.prompts }));
  save("embeddings.json", new Blob([JSON.stringify({ run: $("run").value, images })], { type: "application/json" }));
}

// The gallery

async function gallery(more = false) {
  const query = $("query").value.trim();
  const by = document.querySelector("input[name=by]:checked").value;
  const asked = (state.page.asked ?? 0) + 1;
  const offset = more ? state.page.offset : 0;
  state.page = { query, by, offset, asked };
  const current = () => state.page.asked === asked;
  const said = (text) => { if (current()) $("found").replaceChildren(...text); };
  said([make("span", { className: "spinner small" }), "Looking …"]);
  $("more").hidden = true;
  try {
    const path = query
      ? `/search?q=${encodeURIComponent(query)}&by=${by}&limit=${PAGE}&run=${encodeURIComponent($("run").value)}`
      : `/gallery?offset=${offset}&limit=${PAGE}`;
    const answer = await askPatiently(path, {}, (text) => said([make("span", { className: "spinner small" }), `${text[0].toUpperCase()}${text.slice(1)} …`]), current);
    if (!current()) return;
    const tiles = answer.pictures.map((each) => tile(each, ...cosines(each)));
    if (more) $("pictures").append(...tiles);
    else $("pictures").replaceChildren(...tiles);
    state.page.offset = offset + tiles.length;
    $("more").hidden = Boolean(query) || state.page.offset >= answer.total;
    const drawn = state.runs.rows < state.runs.rows_in_cache ? `, drawn from ${state.runs.rows_in_cache.toLocaleString("en")}` : "";
    const trained = query && by === "predicted" ? " Most pictures are ones that the run was trained on: it predicts better for them than for new ones." : "";
    said([query ? (tiles.length ? `The ${plural(tiles.length, "picture")} nearest to “${query}”.${trained}` : "No picture can be compared with a text.") : `${state.runs.rows.toLocaleString("en")} pictures${drawn}`]);
  } catch (error) {
    said([error.message]);
    if (!more) $("pictures").replaceChildren();
  }
}

const cosines = (picture) => {
  const parts = [];
  if (typeof picture.predicted === "number") parts.push(make("b", { textContent: picture.predicted.toFixed(3) }), " predicted");
  if (typeof picture.true === "number") parts.push(parts.length ? " · " : "", make("b", { textContent: picture.true.toFixed(3) }), " own prompt");
  return parts.length ? [make("span", { className: "cosines" }, ...parts)] : [];
};

// Views

function show(view) {
  for (const id of ["loading", "locked", "predict", "gallery"]) $(id).hidden = id !== view;
  for (const link of document.querySelectorAll("nav a[href^='#']")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function route() {
  if (!state.runs) return;
  const view = location.hash === "#gallery" && state.runs.rows ? "gallery" : "predict";
  show(view);
  if (view === "gallery" && !$("pictures").children.length) gallery();
}

function aboutRun() {
  const run = state.runs.runs.find((each) => each.name === $("run").value);
  $("about-run").textContent = run
    ? `The run ${run.name} (${run.head}) has a mean cosine of ${run.cosine.toFixed(3)} with the true prompts of ${run.rows} images it was not trained on.`
    : "";
}

async function start() {
  $("gone").hidden = true;
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  try {
    if (token) {
      history.replaceState(null, "", location.pathname);
      await ask("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    }
    state.runs = await askJson("/runs");
  } catch (error) {
    if (error instanceof Locked) return;
    if (!state.runs) {
      $("loading").replaceChildren(make("p", { textContent: error.message }), make("button", { type: "button", textContent: "Try again", on: { click: start } }));
      show("loading");
    }
    return;
  }
  const { runs, limits } = state.runs;
  const chosen = $("run").value || state.runs.default;
  $("run").replaceChildren(...runs.map((run) => make("option", { value: run.name, textContent: `${run.name} · ${run.cosine.toFixed(3)}`, selected: run.name === chosen })));
  document.querySelector(".run").hidden = false;
  $("limits").textContent = `up to ${size(limits.file_bytes)} and ${Math.floor(limits.pixels / 1e6)} megapixels each`;
  $("to-gallery").hidden = !state.runs.rows;
  $("to-report").hidden = !state.runs.report;
  aboutRun();
  route();
}

$("files").addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });
$("run").addEventListener("change", () => { aboutRun(); again(); if (!$("gallery").hidden) gallery(); else $("pictures").replaceChildren(); });
$("compose").addEventListener("change", again);
$("npy").addEventListener("click", saveNpy);
$("json").addEventListener("click", saveJson);
$("clear").addEventListener("click", () => {
  for (const item of state.items) URL.revokeObjectURL(item.url);
  state.items = [];
  $("results").replaceChildren();
  $("tools").hidden = true;
  $("predict").classList.remove("some");
  $("files").focus();
});
$("search").addEventListener("submit", (event) => { event.preventDefault(); gallery(); });
$("query").addEventListener("search", () => { if (!$("query").value) gallery(); });
for (const radio of document.querySelectorAll("input[name=by]")) radio.addEventListener("change", () => { if ($("query").value.trim()) gallery(); });
$("more").addEventListener("click", () => gallery(true));
$("retry").addEventListener("click", () => start());
$("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/session", { method: "POST", headers: { Authorization: `Bearer ${$("token").value}` } }).catch(() => null);
  $("unlock-failed").hidden = Boolean(answer?.ok);
  $("unlock-failed").textContent = answer ? "This is not the token." : "The app does not answer.";
  if (answer?.ok) { $("token").value = ""; start(); }
});
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

let inside = 0;
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", (event) => { if (hasFiles(event)) { inside += 1; document.body.classList.add("over"); } });
addEventListener("dragleave", () => { inside = Math.max(0, inside - 1); if (!inside) document.body.classList.remove("over"); });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  inside = 0;
  document.body.classList.remove("over");
  if (hasFiles(event)) { event.preventDefault(); add([...event.dataTransfer.files]); }
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); add(files); }
});
addEventListener("hashchange", route);

// While the app does not answer, look now and then whether it does again.
setInterval(() => { if (!$("gone").hidden) fetch("/health").then(() => (state.runs ? ($("gone").hidden = true) : start()), () => {}); }, 3000);
start();
