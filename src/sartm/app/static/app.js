// The page: what is chosen, what was answered, and what the controls do. Uses the REST API only.

import { encodeMasks, encodePng, fromBase64, paintMask } from "./codec.js";
import { History, fill, join, stroke } from "./editor.js";
import { Colours, Pane, View } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const MODES = { both: "Both", rgb: "RGB alone", thermal: "Thermal alone" };
const PLAIN = "picture"; // side by side there is one without classes, too
const IGNORE_COLOUR = [255, 255, 255];

const state = {
  models: [],
  inputs: { rgb: null, thermal: null }, // {file, bitmap, name, inside}
  results: new Map(), // modality -> result
  folder: null, // {info, index}: the pair that is stepped to
  saved: null, // label of the folder's pair: shown instead of a prediction
  mode: "both",
  base: "rgb",
  tool: "brush",
  wish: false, // to correct, as soon as there is one map to correct
  editing: false,
  paint: 1,
  only: null, // class that alone is bright
  model: "",
  run: 0, // number of the newest choice; answers to older ones are dropped
  busy: 0,
  pointer: null,
};
const view = new View();
const panes = [];

// --- the service ---------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = sessionStorage.getItem("token") ?? "";

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refusal(0, "The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askToken();
    return ask(path, options);
  }
  const content = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, content.detail ?? `The service answered ${answer.status}.`);
}

function askToken() {
  const dialog = $("ask");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        token = $("token").value;
        sessionStorage.setItem("token", token);
        resolve();
      },
      { once: true },
    );
  });
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value != null) data.append(name, value);
  return { method: "POST", body: data };
}

function say(text, good = false) {
  const toast = document.createElement("div");
  toast.className = good ? "toast good" : "toast";
  toast.append(Object.assign(document.createElement("span"), { textContent: text }));
  const close = Object.assign(document.createElement("button"), { textContent: "×", type: "button" });
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => toast.remove());
  toast.append(close);
  $("toasts").replaceChildren(...[...$("toasts").children].slice(-2), toast);
  setTimeout(() => toast.remove(), good ? 2500 : 9000);
}

/** Run something the user asked for; what goes wrong is said, not thrown. */
async function attempt(work) {
  state.busy++;
  $("busy").hidden = false;
  try {
    return await work();
  } catch (error) {
    say(error instanceof Refusal ? error.message : `This page failed: ${error.message}`);
    if (!(error instanceof Refusal)) console.error(error);
    return undefined;
  } finally {
    if (!--state.busy) $("busy").hidden = true;
  }
}

// --- pictures ------------------------------------------------------------------------------------

async function show(file, kind) {
  const answer = await ask("/v1/display", form({ image: file, view: kind }));
  return createImageBitmap(await answer.blob());
}

/** Whether a file is rather thermal: by its name, by being no picture for browsers, or by being grey. */
async function looksThermal(file) {
  if (/thermal|infra|lwir|(^|[_\-. ])(ir|th|t)([_\-. ]|$)/i.test(file.name)) return true;
  if (/rgb|visible|(^|[_\-. ])(vi|vis)([_\-. ]|$)/i.test(file.name)) return false;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return true;
  const canvas = new OffscreenCanvas(48, 48);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, 48, 48);
  const { data } = context.getImageData(0, 0, 48, 48);
  let colour = 0;
  for (let i = 0; i < data.length; i += 4) colour += Math.abs(data[i] - data[i + 1]) + Math.abs(data[i + 1] - data[i + 2]);
  return colour / (48 * 48) < 3;
}

async function place(files, kind = null) {
  if (!files.length || !mayLeave()) return;
  const chosen = {};
  if (kind && files.length === 1) {
    chosen[kind] = files[0];
  } else {
    const guessed = await Promise.all(files.slice(0, 2).map(looksThermal));
    if (files.length === 1) chosen[guessed[0] ? "thermal" : "rgb"] = files[0];
    else {
      const second = guessed[0] && !guessed[1]; // the first is thermal only if the other is not
      chosen.rgb = files[second ? 1 : 0];
      chosen.thermal = files[second ? 0 : 1];
    }
  }
  leaveFolder();
  await choose(chosen);
}

/** Take new pictures (null removes one) and label them. */
async function choose(chosen) {
  const run = ++state.run;
  await attempt(async () => {
    const shown = await showAll(chosen);
    if (run !== state.run) return;
    if (state.inputs.thermal?.inside) state.inputs.thermal = null;
    Object.assign(state.inputs, shown);
    state.results.clear();
    state.saved = null;
    drawInputs();
    await label();
  });
}

async function showAll(chosen) {
  const shown = {};
  for (const [kind, file] of Object.entries(chosen)) {
    shown[kind] = file && { file, name: file.name, bitmap: await show(file, kind) };
  }
  return shown;
}

function drawInputs() {
  for (const kind of ["rgb", "thermal"]) {
    const slot = $(`slot-${kind}`);
    const input = state.inputs[kind];
    slot.classList.toggle("filled", Boolean(input));
    slot.querySelector(".remove").hidden = !input || Boolean(input.inside);
    slot.querySelector(".name").textContent = input?.name ?? "";
    const canvas = slot.querySelector("canvas");
    canvas.width = input ? 320 : 0;
    canvas.height = input ? Math.round((320 * input.bitmap.height) / input.bitmap.width) : 0;
    if (input) canvas.getContext("2d").drawImage(input.bitmap, 0, 0, canvas.width, canvas.height);
  }
  const { rgb, thermal } = state.inputs;
  const differ = rgb && thermal && !thermal.inside && (rgb.bitmap.width !== thermal.bitmap.width || rgb.bitmap.height !== thermal.bitmap.height);
  $("resize-row").hidden = !differ;
  const any = rgb || thermal;
  if (!state.inputs[state.base] && state.base !== "confidence") state.base = rgb ? "rgb" : "thermal";
  for (const element of [$("views"), $("panes"), $("sees")]) element.hidden = !any;
  $("empty").hidden = Boolean(any);
  $("chips").hidden = !any || !$("chips").children.length;
  document.body.classList.toggle("start", !any);
  const two = Boolean(rgb && thermal);
  for (const input of document.getElementsByName("mode")) {
    input.disabled = !two;
    input.checked = input.value === state.mode;
  }
  if (!two && state.mode !== "both") setMode("both");
}

// --- labelling -----------------------------------------------------------------------------------

function classTable() {
  if (state.folder) return state.folder;
  const model = state.models.find((one) => one.name === $("model").value) ?? state.models[0];
  return { classes: model.classes, ignore: model.ignore };
}

function modes() {
  return state.mode === "compare" ? Object.keys(MODES) : [state.mode];
}

async function label() {
  const run = ++state.run;
  const { rgb, thermal } = state.inputs;
  if (!rgb && !thermal) return refresh();
  if (!$("resize-row").hidden && !$("resize").checked) return refresh();
  if (state.saved && state.mode === "both") state.results.set("both", state.saved);
  refresh();
  for (const mode of modes()) {
    if (state.results.has(mode)) continue;
    const fields = {
      rgb: rgb?.file, thermal: thermal?.inside ? null : thermal?.file, model: $("model").value,
      modality: mode, output: "json", maps: "true",
      resize_thermal: !$("resize-row").hidden,
    };
    await attempt(async () => {
      const answer = await askPatiently("/v1/segment", form(fields));
      const result = await understand(await answer.json());
      if (run !== state.run) return;
      state.results.set(mode, result);
      if (!state.inputs.thermal && result.json.modalities.includes("thermal")) {
        const bitmap = await show(rgb.file, "fourth");
        state.inputs.thermal = { file: null, bitmap, name: "4th channel", inside: true };
        drawInputs();
      }
      refresh();
    });
    if (run !== state.run) return;
  }
}

async function askPatiently(path, options) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (error.status !== 429 || tries === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 700 * (tries + 1)));
    }
  }
}

/** An answer of the service as a map that can be drawn and corrected. */
async function understand(json) {
  const png = fromBase64(json.label_png);
  const bitmap = await createImageBitmap(new Blob([fromBase64(json.confidence_png)], { type: "image/png" }));
  delete json.label_png;
  delete json.confidence_png;
  const result = createResult(json, classTable());
  Object.assign(result, { png: result.renamed ? null : png, bitmap, confidence: greyOf(bitmap) });
  return result;
}

/** Class ids go by name, because a folder's table need not be the model's. */
function createResult(json, table) {
  const [height, width] = json.size;
  const wide = table.ignore > 255 || table.classes.length > 256;
  const map = { size: json.size, labels: new (wide ? Uint16Array : Uint8Array)(width * height) };
  const rest = table.classes.find((one) => one.rest)?.id ?? table.ignore;
  let renamed = false;
  for (const segment of json.segments) {
    const same = table.classes[segment.id]?.name === segment.name || segment.id === table.ignore;
    const named = table.classes.find((one) => one.name === segment.name)?.id ?? rest;
    const id = same ? segment.id : named;
    renamed ||= !same;
    paintMask(map.labels, map.size, segment.segmentation.counts, id);
  }
  const result = { json, map, table, renamed, edited: false, history: new History(), colours: new Colours(map) };
  result.colours.paint(coloursOf(table), state.only);
  count(result);
  return result;
}

function coloursOf(table) {
  return [...table.classes, { id: table.ignore, name: "ignore", colour: IGNORE_COLOUR, rest: false }];
}

function greyOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return Uint8Array.from({ length: bitmap.width * bitmap.height }, (_, i) => data[4 * i]);
}

function count(result) {
  result.counts = new Map();
  const counts = new Uint32Array(65536);
  for (const id of result.map.labels) counts[id]++;
  for (const { id } of coloursOf(result.table)) if (counts[id]) result.counts.set(id, counts[id]);
}

// --- showing -------------------------------------------------------------------------------------

function refresh() {
  const shown = modes();
  document.body.classList.toggle("comparing", shown.length > 1);
  if (shown.length > 1) shown.push(PLAIN);
  while (panes.length < shown.length) panes.push(createPane());
  panes.forEach((pane, index) => {
    const mode = shown[index];
    pane.figure.hidden = !mode;
    if (!mode) return;
    pane.mode = mode;
    const result = state.results.get(mode);
    pane.base = baseOf(result, shown.length > 1 && state.inputs[mode] ? mode : state.base);
    pane.colours = result?.colours ?? null;
    pane.map = (result ?? state.results.get(shown[0]))?.map ?? null;
    pane.opacity = $("opacity").value / 100;
    pane.caption.hidden = shown.length === 1;
    const title = mode === PLAIN ? "Picture" : `Picture and classes, ${MODES[mode]}`;
    pane.canvas.setAttribute("aria-label", `${title}. Arrow keys move it.`);
    pane.draw();
  });
  const size = panes[0]?.size?.join();
  if (size && size !== state.size) {
    state.size = size;
    panes[0].fit();
  }
  const result = current();
  for (const input of document.getElementsByName("base")) {
    input.disabled = input.value === "confidence" ? !result?.bitmap : !state.inputs[input.value];
    input.checked = input.value === state.base;
  }
  $("result").hidden = $("saves").hidden = !result;
  $("edit").hidden = shown.length > 1;
  $("note").textContent = result?.json.note ?? "";
  $("note").hidden = !result?.json.note;
  showEditing(state.wish && Boolean(result) && shown.length === 1);
  drawLegend();
  drawHistory();
  drawFolder();
  readout();
}

function baseOf(result, base = state.base) {
  if (state.base === "confidence" && result?.bitmap) return result.bitmap;
  const { rgb, thermal } = state.inputs;
  return (state.inputs[base] ?? rgb ?? thermal)?.bitmap ?? null;
}

function current() {
  return state.results.get(modes()[0]);
}

function createPane() {
  const figure = Object.assign(document.createElement("figure"), { className: "pane" });
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const caption = document.createElement("figcaption");
  figure.append(canvas, caption);
  $("panes").append(figure);
  const pane = new Pane(canvas, view, {
    paints: () => state.editing,
    hover: (point) => hover(point),
    leave: () => hover(null),
    begin: (point) => beginStroke(point),
    draw: (point) => continueStroke(point),
    end: () => endStroke(),
    cancel: () => cancelStroke(),
  });
  return Object.assign(pane, { figure, caption });
}

function hover(point) {
  state.pointer = point;
  const ring = state.editing && point && state.tool !== "fill" ? { ...point, radius: $("size").value / 2 } : null;
  for (const pane of panes) {
    pane.ring = ring;
    if (ring) pane.draw();
  }
  readout();
}

function readout() {
  const shown = modes();
  for (const pane of panes) {
    if (pane.figure.hidden || pane.caption.hidden) continue;
    const spot = spotAt(state.results.get(pane.mode), state.pointer);
    pane.caption.textContent = (MODES[pane.mode] ?? "Picture") + (spot ? `: ${spot.words}` : "");
  }
  const result = current();
  const point = state.pointer ?? middle();
  const spot = spotAt(result, point);
  const line = $("spot");
  line.ariaLive = state.pointer ? "off" : "polite"; // a mouse would make a reader talk without end
  if (spot) {
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = `rgb(${spot.colour})`;
    const name = Object.assign(document.createElement("b"), { textContent: spot.name });
    const where = ` ${spot.sure} at ${spot.x}, ${spot.y}`;
    line.replaceChildren(swatch, name, where);
  } else {
    line.textContent = waitingFor(result);
  }
  const json = result?.json;
  const facts = json && [`${json.size[1]} × ${json.size[0]}`];
  if (json?.confidence != null && shown.length === 1) facts.push(`mean confidence ${percent(json.confidence)}`);
  if (json?.seconds) facts.push(`${json.seconds.toFixed(2)} s`);
  if (result?.edited) facts.push("corrected");
  $("facts").textContent = facts ? facts.join(" · ") : "";
}

function waitingFor(result) {
  if (result) return "Point at the picture to see what it is";
  if (!$("resize-row").hidden && !$("resize").checked) return "The sizes differ: see the note beside the pictures";
  return state.inputs.rgb || state.inputs.thermal ? "Labelling" : "Nothing here yet";
}

/** What the keyboard reads: the middle of the picture that has the focus. */
function middle() {
  const pane = panes.find((one) => one.canvas === document.activeElement);
  return pane ? view.at(pane.width / 2, pane.height / 2) : null;
}

function spotAt(result, point) {
  if (!result || !point) return null;
  const [height, width] = result.map.size;
  const x = Math.floor(point.x);
  const y = Math.floor(point.y);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const id = result.map.labels[y * width + x];
  const found = coloursOf(result.table).find((one) => one.id === id) ?? { name: `id ${id}`, colour: [0, 0, 0] };
  const sure = result.confidence && !result.edited ? percent(result.confidence[y * width + x] / 255) : "";
  const name = readable(found.name);
  return { x, y, name, colour: found.colour, sure, words: `${name} ${sure}` };
}

const readable = (name) => name.replaceAll("_", " ");

function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1 %";
  const digits = value > 0 && value < 0.1 ? 1 : 0;
  return `${(100 * value).toFixed(digits)} %`;
}

function drawLegend() {
  const result = current();
  if (!result) return;
  const shown = modes().map((mode) => state.results.get(mode));
  const total = (one) => one.map.labels.length;
  const share = (one, id) => (one ? (one.counts.get(id) ?? 0) / total(one) : 0);
  const rows = coloursOf(result.table).map((one) => ({ ...one, shares: shown.map((each) => share(each, one.id)) }));
  const listed = state.editing ? rows : rows.filter((row) => row.shares.some((value) => value > 0));
  if (!state.editing) listed.sort((a, b) => Number(a.rest) - Number(b.rest) || b.shares[0] - a.shares[0]);
  const chosen = state.editing ? state.paint : state.only;
  const focused = document.activeElement?.closest?.("#legend button")?.dataset.id;
  $("legend").replaceChildren(...listed.map((row) => legendRow(row, chosen === row.id)));
  if (focused) $("legend").querySelector(`[data-id="${focused}"]`)?.focus();
  $("heads").hidden = shown.length === 1;
  $("heads").replaceChildren(...modes().map((mode) => Object.assign(document.createElement("span"), { textContent: MODES[mode].split(" ")[0] })));
}

function legendRow(row, pressed) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.id = row.id;
  button.setAttribute("aria-pressed", String(pressed));
  button.title = state.editing ? "Paint with this class" : "Show this class alone";
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.background = `rgb(${row.colour})`;
  const name = Object.assign(document.createElement("span"), { className: "label", textContent: readable(row.name) });
  const shares = Object.assign(document.createElement("span"), { className: "shares" });
  for (const value of row.shares) {
    shares.append(Object.assign(document.createElement("span"), { textContent: value ? percent(value) : "–" }));
  }
  const meter = Object.assign(document.createElement("span"), { className: "meter" });
  const filled = document.createElement("i");
  filled.style.width = `${100 * Math.max(...row.shares)}%`;
  filled.style.background = `rgb(${row.colour.map((c) => Math.round(c + (255 - c) * 0.25))})`;
  filled.hidden = !row.shares.some((value) => value > 0);
  meter.append(filled);
  button.append(swatch, name, shares, meter);
  button.addEventListener("click", () => (state.editing ? setPaint(row.id) : setOnly(row.id)));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function setOnly(id) {
  state.only = state.only === id ? null : id;
  for (const result of state.results.values()) result.colours.paint(coloursOf(result.table), state.only);
  for (const pane of panes) pane.draw();
  drawLegend();
}

function setBase(base) {
  state.base = base;
  refresh();
}

function setMode(mode) {
  state.mode = mode;
  for (const input of document.getElementsByName("mode")) input.checked = input.value === mode;
  if (mode !== "compare") state.size = null; // the pane's width changes: fit again
  label();
}

// --- correcting ----------------------------------------------------------------------------------

let pen = null; // the stroke in the making: {before, last, changed}

function setEditing(on) {
  state.wish = on;
  showEditing(on && Boolean(current()) && state.mode !== "compare");
}

function showEditing(on) {
  const changes = on !== state.editing;
  state.editing = on;
  $("tools").hidden = !on;
  $("edit").setAttribute("aria-pressed", String(on));
  $("edit").textContent = on ? "Done" : "Correct";
  document.body.classList.toggle("painting", on);
  if (on && changes && state.only !== null) setOnly(state.only);
  if (on) fillPicker();
  if (!on) for (const pane of panes) pane.ring = null;
  if (changes) drawLegend();
}

function fillPicker() {
  const table = coloursOf(current().table);
  const key = table.map((one) => one.name).join("\n");
  if ($("paint").dataset.key !== key) {
    $("paint").dataset.key = key;
    $("paint").replaceChildren(...table.map((one) => new Option(readable(one.name), one.id)));
    if (!table.some((one) => one.id === state.paint)) state.paint = table[0].id;
  }
  setPaint(state.paint);
}

function setPaint(id) {
  state.paint = id;
  $("paint").value = id;
  const found = coloursOf(current().table).find((one) => one.id === id);
  $("ink").style.background = `rgb(${found.colour})`;
  if (state.tool === "eraser") setTool("brush");
  drawLegend();
}

function setTool(tool) {
  state.tool = tool;
  for (const input of document.getElementsByName("tool")) input.checked = input.value === tool;
}

function ink(result) {
  if (state.tool !== "eraser") return state.paint;
  return result.table.classes.find((one) => one.rest)?.id ?? result.table.ignore;
}

function beginStroke(point) {
  const result = current();
  if (!result) return;
  pen = { result, before: result.map.labels.slice(), last: point, changed: null };
  if (state.tool === "fill") touched(fill(result.map, point, ink(result)));
  else continueStroke(point);
}

function continueStroke(point) {
  if (!pen || state.tool === "fill") return;
  touched(stroke(pen.result.map, pen.last, point, $("size").value / 2, ink(pen.result)));
  pen.last = point;
}

function touched(changed) {
  if (!changed) return;
  pen.changed = join(pen.changed, changed);
  repaint(pen.result, changed);
}

function repaint(result, where) {
  result.colours.paint(coloursOf(result.table), state.only, where);
  for (const pane of panes) pane.draw();
}

function endStroke() {
  if (pen?.changed) {
    pen.result.history.add(pen.result.map, pen.before, pen.changed);
    noteEdit(pen.result);
  }
  pen = null;
}

function cancelStroke() {
  if (pen?.changed) {
    pen.result.map.labels.set(pen.before);
    repaint(pen.result, pen.changed);
  }
  pen = null;
}

function noteEdit(result) {
  result.edited = result.history.done.length > 0;
  result.unsaved = result.edited || Boolean(state.folder); // undone, it differs from its file
  count(result);
  drawLegend();
  drawHistory();
  drawFolder();
  readout();
}

function travel(direction) {
  const result = current();
  const where = result && state.editing && result.history[direction](result.map);
  if (!where) return;
  repaint(result, where);
  noteEdit(result);
}

function drawHistory() {
  const history = current()?.history;
  $("undo").disabled = !history?.done.length;
  $("redo").disabled = !history?.undone.length;
}

// --- the folder ----------------------------------------------------------------------------------

async function openFolder() {
  const info = await (await ask("/v1/annotation")).json();
  if (!info.pairs.length) return;
  state.listed = info;
  const first = info.pairs.findIndex((pair) => !pair.saved);
  await step(Math.max(first, 0));
}

async function step(index) {
  const info = state.listed;
  if (!info || index < 0 || index >= info.pairs.length || !mayLeave()) return;
  const run = ++state.run;
  await attempt(async () => {
    const pair = info.pairs[index];
    const chosen = { rgb: null, thermal: null };
    for (const kind of ["rgb", "thermal"]) {
      if (pair[kind]) chosen[kind] = await fetchFile(`/v1/annotation/${index}/${kind}`, pair.name);
    }
    const shown = await showAll(chosen);
    const saved = pair.labelled ? await savedResult(index) : null;
    if (run !== state.run) return;
    state.folder = { classes: info.classes, ignore: info.ignore, index };
    state.at = index;
    state.inputs = shown;
    state.results.clear();
    state.saved = saved;
    state.wish = true;
    state.mode = "both";
    drawInputs();
    await label();
  });
}

/** To the next pair, or back to the one that was left for something else. */
function goOn() {
  step(state.folder ? state.folder.index + 1 : state.at);
}

async function savedResult(index) {
  const json = await (await ask(`/v1/annotation/${index}/label`)).json();
  return createResult({ ...json, note: "", modalities: [] }, state.listed);
}

async function fetchFile(path, name) {
  const blob = await (await ask(path)).blob();
  return new File([blob], name, { type: blob.type });
}

async function save() {
  const result = current();
  if (!state.folder || !result) return;
  const { index } = state.folder;
  const info = state.listed;
  const done = await attempt(async () => {
    const body = await encodePng(result.map.labels, result.map.size);
    await ask(`/v1/annotation/${index}/label`, { method: "PUT", body });
    return true;
  });
  if (!done) return;
  result.unsaved = false;
  Object.assign(info.pairs[index], { saved: true, labelled: true });
  say(`Saved ${info.pairs[index].name}`, true);
  drawFolder();
  if (index + 1 < info.pairs.length) await step(index + 1);
}

function mayLeave() {
  const unsaved = [...state.results.values()].some((one) => one.unsaved);
  return !unsaved || window.confirm("What you corrected is not saved. Go on without it?");
}

function leaveFolder() {
  if (!state.folder) return;
  state.folder = null;
  state.inputs = { rgb: null, thermal: null };
  state.wish = false;
}

function drawFolder() {
  $("folder").hidden = !state.listed;
  if (!state.listed) return;
  const { pairs, name } = state.listed;
  const done = pairs.filter((pair) => pair.saved).length;
  const index = state.folder?.index;
  $("pair").textContent = index == null ? name : pairs[index].name;
  $("progress").textContent = index == null ? `${done} of ${pairs.length} saved` : `${index + 1} of ${pairs.length}, ${done} saved`;
  $("previous").disabled = !index;
  $("next").disabled = index != null && index + 1 >= pairs.length;
  $("save").disabled = index == null || !current() || state.mode === "compare";
  $("saved").hidden = index == null || !pairs[index].saved || Boolean(current()?.unsaved);
}

// --- downloads -----------------------------------------------------------------------------------

function stem() {
  const name = (state.inputs.rgb ?? state.inputs.thermal).name;
  return name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "picture";
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function labelBlob(result) {
  result.unsaved &&= Boolean(state.folder); // a folder's labels belong into the folder
  if (result.png && !result.edited) return new Blob([result.png], { type: "image/png" });
  return encodePng(result.map.labels, result.map.size);
}

async function overlayBlob(result) {
  const [height, width] = result.map.size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(baseOf(result), 0, 0, width, height);
  result.colours.drawOn(context, $("opacity").value / 100);
  return canvas.convertToBlob({ type: "image/png" });
}

function jsonBlob(result) {
  const { json, map, table } = result;
  const named = coloursOf(table);
  const segments = [...encodeMasks(map.labels, map.size)].map(([id, { counts, pixels }]) => {
    const { name, colour } = named.find((one) => one.id === id) ?? { name: `id ${id}`, colour: [0, 0, 0] };
    const share = Number((pixels / map.labels.length).toFixed(6));
    return { id, name, colour, pixels, share, segmentation: { size: map.size, counts } };
  });
  const content = { ...json, corrected: result.edited, segments };
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}

// --- controls ------------------------------------------------------------------------------------

function zoomBy(factor) {
  const pane = panes[0];
  if (pane?.size) view.zoom(factor, pane.width / 2, pane.height / 2);
}

view.addEventListener("change", () => {
  $("scale").textContent = `${Math.round(100 * view.scale)} %`;
  document.body.classList.toggle("zoomed", view.zoomed);
  if (!state.pointer) readout();
});

function setOpacity(value) {
  $("opacity").value = value;
  for (const pane of panes) {
    pane.opacity = $("opacity").value / 100;
    pane.draw();
  }
  localStorage.setItem("opacity", $("opacity").value);
}

let strongest = 60;

function toggleOverlay() {
  const value = Number($("opacity").value);
  if (value) strongest = value;
  setOpacity(value ? 0 : strongest);
}

function setSize(value) {
  $("size").value = value;
  $("diameter").textContent = $("size").value;
  hover(state.pointer);
}

/** Use the tool in the middle of the picture: correcting without a mouse. */
function dab() {
  const point = middle();
  if (!state.editing || !point) return;
  beginStroke(point);
  endStroke();
}

const KEYS = {
  1: () => state.inputs.rgb && setBase("rgb"),
  2: () => state.inputs.thermal && setBase("thermal"),
  3: () => current()?.bitmap && setBase("confidence"),
  o: toggleOverlay,
  "[": () => setOpacity(Number($("opacity").value) - 10),
  "]": () => setOpacity(Number($("opacity").value) + 10),
  "{": () => setSize(Math.round($("size").value / 1.3 - 0.5)),
  "}": () => setSize(Math.round($("size").value * 1.3 + 0.5)),
  "+": () => zoomBy(1.4),
  "=": () => zoomBy(1.4),
  "-": () => zoomBy(1 / 1.4),
  0: () => panes[0]?.fit(),
  c: () => current() && setEditing(!state.editing),
  b: () => setTool("brush"),
  e: () => setTool("eraser"),
  f: () => setTool("fill"),
  q: () => {
    if (!state.editing) return;
    const ids = coloursOf(current().table).map((one) => one.id);
    setPaint(ids[(ids.indexOf(state.paint) + 1) % ids.length]);
  },
  p: () => state.folder && step(state.folder.index - 1),
  n: goOn,
  s: save,
  "?": () => $("keys").showModal(),
};
const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const back = key === "z" && !event.shiftKey;
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    travel(back ? "undo" : "redo");
    return;
  }
  const onCanvas = document.activeElement?.tagName === "CANVAS";
  if (onCanvas && ARROWS[key]) {
    event.preventDefault();
    state.pointer = null;
    view.pan(...ARROWS[key]);
  } else if (onCanvas && key === " ") {
    event.preventDefault();
    dab();
  } else if (KEYS[key] && !event.altKey && document.activeElement?.tagName !== "SELECT") {
    KEYS[key]();
  }
}

function wire() {
  document.addEventListener("keydown", onKey);
  for (const input of document.getElementsByName("base")) input.addEventListener("change", () => setBase(input.value));
  for (const input of document.getElementsByName("mode")) input.addEventListener("change", () => setMode(input.value));
  for (const input of document.getElementsByName("tool")) input.addEventListener("change", () => setTool(input.value));
  const clicks = {
    in: () => zoomBy(1.4), out: () => zoomBy(1 / 1.4), fit: () => panes[0].fit(),
    undo: () => travel("undo"), redo: () => travel("redo"),
    edit: () => setEditing(!state.editing),
    previous: () => step(state.folder.index - 1), next: goOn, save,
    help: () => $("keys").showModal(), theme: switchTheme, browse: () => browse(null),
    "get-labels": async () => download(await labelBlob(current()), `${stem()}_labels.png`),
    "get-overlay": async () => download(await overlayBlob(current()), `${stem()}_overlay.png`),
    "get-json": () => download(jsonBlob(current()), `${stem()}_segments.json`),
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  $("opacity").addEventListener("input", () => setOpacity($("opacity").value));
  $("size").addEventListener("input", () => setSize($("size").value));
  $("paint").addEventListener("change", () => setPaint(Number($("paint").value)));
  $("resize").addEventListener("change", () => (state.results.clear(), label()));
  $("model").addEventListener("change", () => {
    if (!mayLeave()) {
      $("model").value = state.model;
      return;
    }
    state.model = $("model").value;
    state.results.clear();
    state.saved = null;
    label();
  });
  $("file").addEventListener("change", () => {
    place([...$("file").files], $("file").dataset.kind || null);
    $("file").value = "";
  });
  for (const kind of ["rgb", "thermal"]) wireSlot(kind);
  wireDrops();
  window.addEventListener("beforeunload", (event) => {
    if ([...state.results.values()].some((one) => one.unsaved)) event.preventDefault();
  });
}

function browse(kind) {
  $("file").dataset.kind = kind ?? "";
  $("file").multiple = !kind;
  $("file").click();
}

function wireSlot(kind) {
  const slot = $(`slot-${kind}`);
  slot.querySelector(".pick").addEventListener("click", () => browse(kind));
  slot.querySelector(".remove").addEventListener("click", () => {
    if (!mayLeave()) return;
    if (state.folder) state.folder = null;
    choose({ [kind]: null });
  });
}

function wireDrops() {
  const filesOf = (data) => [...(data?.files ?? [])];
  const slotOf = (event) => event.target.closest?.(".slot");
  const mark = (event) => {
    for (const slot of document.querySelectorAll(".slot")) slot.classList.toggle("over", slot === (event && slotOf(event)));
    $("drop").hidden = !event || Boolean(slotOf(event));
  };
  document.addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    mark(event);
  });
  document.addEventListener("dragleave", (event) => !event.relatedTarget && mark(null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    place(filesOf(event.dataTransfer), slotOf(event)?.id.replace("slot-", "") ?? null);
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    const slot = document.activeElement?.closest(".slot");
    const free = state.inputs.rgb && !state.inputs.thermal ? "thermal" : null;
    if (files.length) place(files, slot?.id.replace("slot-", "") ?? free);
  });
}

// --- start ---------------------------------------------------------------------------------------

function theme(name) {
  document.documentElement.dataset.theme = name;
}

function switchTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(name);
  localStorage.setItem("theme", name);
}

/** The names are there at once, with room for the pictures: nothing moves under a finger later. */
async function listExamples() {
  const list = await (await ask("/v1/examples")).json();
  const chips = [Object.assign(document.createElement("span"), { textContent: "Try" })];
  for (const one of list) {
    $("cards").append(exampleCard(one));
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: one.title });
    chip.addEventListener("click", () => openExample(one));
    chips.push(chip);
  }
  $("scenes").hidden = !list.length;
  $("chips").replaceChildren(...chips);
  $("chips").hidden = document.body.classList.contains("start");
}

function exampleCard(one) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "scene" });
  button.dataset.name = one.name;
  button.append(Object.assign(document.createElement("span"), { textContent: one.title }));
  button.addEventListener("click", () => openExample(one));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

async function drawExamples() {
  for (const button of document.querySelectorAll("#cards button")) {
    for (const kind of ["thermal", "rgb"]) { // one by one: others may ask in between
      const file = await fetchFile(`/v1/examples/${button.dataset.name}/${kind}`, button.dataset.name);
      button.prepend(Object.assign(document.createElement("img"), { src: URL.createObjectURL(file), alt: "" }));
    }
  }
}

async function openExample(one) {
  if (!mayLeave()) return;
  leaveFolder();
  await attempt(async () => {
    const chosen = {};
    for (const kind of ["rgb", "thermal"]) {
      chosen[kind] = await fetchFile(`/v1/examples/${one.name}/${kind}`, `${one.name}.png`);
    }
    await choose(chosen);
  });
}

async function start() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  theme(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => localStorage.getItem("theme") ?? theme(dark.matches ? "dark" : "light"));
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    token = given;
    sessionStorage.setItem("token", token);
    history.replaceState(null, "", location.pathname);
  }
  $("opacity").value = localStorage.getItem("opacity") ?? 60;
  document.body.classList.add("start");
  wire();
  await attempt(async () => {
    const answer = await (await ask("/v1/models")).json();
    state.models = answer.models;
    $("model").replaceChildren(...answer.models.map((one) => new Option(one.name, one.name)));
    state.model = $("model").value;
    await listExamples().catch(() => undefined); // a page without examples is still a page
    if (answer.annotation) await openFolder();
  });
  document.documentElement.dataset.ready = "yes";
  await drawExamples().catch(() => undefined);
}

start();
