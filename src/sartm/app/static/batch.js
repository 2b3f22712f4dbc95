// Several pairs at once: a queue that is labelled one by one while any of them is looked at or corrected.

import { Refusal } from "./api.js";
import { encodePng } from "./codec.js";
import { $ } from "./dom.js";
import { label, segment, takeResult } from "./labelling.js";
import { attempt, confirmLoss, say } from "./notices.js";
import { showFiles, showQuickly } from "./pictures.js";
import { objectsCsv, readResult, Result } from "./result.js";
import { readHeat } from "./thermal.js";
import { zip } from "./zip.js";

const FRAME = 1920; // widest picture of a film
const THUMB = [96, 72];

/** A pair in the queue; `take` gives its {rgb, thermal} files, `time` is its second of a film. */
export function createItem(name, take, time = null) {
  const item = { name, time, state: "waiting", error: "", answer: null, labels: null, overlay: null, frame: null, thumb: null, exchanged: false };
  item.take = async () => {
    const { rgb, thermal } = await take();
    return item.exchanged ? { rgb: thermal, thermal: rgb } : { rgb, thermal };
  };
  return item;
}

/** Take the place of what was labelled before; `film` is set where the pairs are its pictures. */
export async function startBatch(state, { items, title, lone = 0, film = null }) {
  closeBatch(state);
  const batch = { items, title, lone, film, running: false, paused: false, unsaved: false, wanted: null, run: 0 };
  state.leaveList();
  state.batch = batch;
  state.changed("list");
  run(state);
  await openItem(state, 0);
}

export function closeBatch(state) {
  if (!state.batch) return;
  state.batch.film?.close();
  state.leaveList();
  state.batch = null;
  state.changed("list");
}

/** Label every pair anew, with another model or range. */
export function restartBatch(state) {
  const { batch } = state;
  batch.run++;
  batch.unsaved = false;
  for (const item of batch.items) Object.assign(item, { state: "waiting", error: "", answer: null, labels: null, overlay: null, frame: null, thumb: null });
  state.results.clear();
  state.changed("list");
  state.changed("results");
  run(state);
}

/** RGB is thermal and the other way round, in every pair. */
export async function exchangeBatch(state) {
  for (const item of state.batch.items) item.exchanged = !item.exchanged;
  const index = state.itemIndex ?? 0;
  restartBatch(state);
  await openItem(state, index);
}

/** Try once more what failed. */
export function retryFailed(state) {
  for (const item of state.batch.items) if (item.state === "failed") Object.assign(item, { state: "waiting", error: "" });
  state.changed("list");
  run(state);
}

export function setPaused(state, paused) {
  state.batch.paused = paused;
  state.changed("list");
  run(state);
}

async function run(state) {
  const { batch } = state;
  if (batch.running) return;
  batch.running = true;
  for (;;) {
    const wanted = batch.wanted?.state === "waiting" ? batch.wanted : null;
    const item = wanted ?? (batch.paused ? null : batch.items.find((each) => each.state === "waiting"));
    if (!item || state.batch !== batch) break;
    await labelItem(state, batch, item);
  }
  batch.running = false;
  state.changed("list");
}

async function labelItem(state, batch, item) {
  const { run: before } = batch;
  const stale = () => state.batch !== batch || batch.run !== before;
  item.state = "working";
  state.changed("list");
  try {
    const files = await item.take();
    const answer = await segment(state, files, "both", $("resize").checked);
    if (stale()) return;
    item.answer = answer;
    await drawItem(state, item, files);
    item.state = "done";
  } catch (error) {
    if (stale()) return;
    if (!(error instanceof Refusal)) console.error(error);
    Object.assign(item, { state: "failed", error: error.message });
    if (error.status === 0) batch.paused = true; // the service is gone: no use to go on
  }
  state.changed("list");
  if (state.item === item) await showItem(state, item);
}

/** Overlay, thumbnail, and of a film the picture that shows inputs and overlay side by side. */
async function drawItem(state, item, files) {
  const result = new Result(item.answer.json, state.tableOf(item.answer.json), null);
  if (item.labels) result.restore(item.labels);
  const [height, width] = result.map.size;
  const shown = [];
  if (files.rgb) shown.push(await showQuickly(files.rgb));
  if (files.thermal && (!files.rgb || item.time !== null)) shown.push(await paintThermal(state, files.thermal));
  const overlay = new OffscreenCanvas(width, height);
  const context = overlay.getContext("2d");
  context.drawImage(shown[0], 0, 0, width, height);
  result.colours.drawOn(context, $("opacity").value / 100);
  item.overlay = await overlay.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  item.thumb = await createImageBitmap(overlay, { resizeWidth: THUMB[0], resizeHeight: THUMB[1], resizeQuality: "medium" });
  if (item.time !== null) item.frame = await drawFrame([...shown, overlay], width, height);
}

async function paintThermal(state, file) {
  const heat = await readHeat(file, "thermal");
  heat.paint(state.window && heat.meets(state.window) ? state.window : heat.auto, state.map);
  return heat.canvas;
}

/** Pictures side by side, with even sides, as codecs want them. */
function drawFrame(pictures, width, height) {
  const scale = Math.min(1, FRAME / (pictures.length * width));
  const [wide, high] = [width, height].map((side) => Math.max(2, 2 * Math.round((scale * side) / 2)));
  const canvas = new OffscreenCanvas(pictures.length * wide, high);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  pictures.forEach((picture, index) => context.drawImage(picture, index * wide, 0, wide, high));
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

/** Show a pair of the queue; what is not labelled yet comes next. */
export async function openItem(state, index) {
  const item = state.batch?.items[index];
  if (!item) return;
  await keepCorrections(state);
  if (!confirmLoss(state)) return;
  const mine = ++state.run;
  state.batch.wanted = item;
  Object.assign(state, { itemIndex: index, pairIndex: null, saved: null });
  state.changed("list");
  run(state);
  await attempt(state, async () => {
    const files = await item.take();
    const inputs = await showFiles(files).catch((error) => {
      if (mine === state.run) show(state, files, { rgb: null, thermal: null });
      throw error;
    });
    if (mine !== state.run) return;
    show(state, files, inputs);
    await showItem(state, item);
  });
  if (item.state === "failed" && state.item === item) say(`${item.name}: ${item.error}`);
}

function show(state, offered, inputs) {
  Object.assign(state, { inputs, offered });
  state.results.clear();
  state.changed("inputs");
  state.changed("results");
}

/** The answer of the pair that is shown, as soon as both are there. */
async function showItem(state, item) {
  if (!item.answer || !(state.inputs.rgb || state.inputs.thermal)) return;
  const { answer } = item;
  const result = await readResult(state, answer);
  if (item.labels) result.restore(item.labels);
  if (state.item !== item || item.answer !== answer || state.results.has("both")) return;
  await takeResult(state, "both", result);
  if (state.mode !== "both") label(state);
}

/** Keep what was corrected on the pair that is shown: it is saved with the others. */
export async function keepCorrections(state) {
  await state.finish();
  const { batch, item } = state;
  const result = state.results.get("both");
  if (!item || !result?.edited) return;
  const { labels } = result.map;
  if (item.labels?.every((id, index) => id === labels[index])) return;
  item.labels = labels.slice();
  batch.unsaved ||= result.unsaved;
  result.unsaved = false;
  await drawItem(state, item, await item.take());
  state.changed("list");
}

/** All that is labelled as ZIP; what is corrected from here on may come too late for it. */
export async function zipBatch(state) {
  await keepCorrections(state);
  const { batch } = state;
  const { unsaved } = batch;
  batch.unsaved = false;
  try {
    return await zip(await filesOf(state, batch));
  } catch (error) {
    batch.unsaved ||= unsaved;
    throw error;
  }
}

/** Label maps, overlays, objects and a summary, as `sartm predict` names them. */
async function filesOf(state, batch) {
  const done = batch.items.filter((item) => item.answer);
  const files = [];
  for (const item of done) {
    const { name } = item;
    const png = item.labels ? await encodeCorrected(state, item) : item.answer.png;
    files.push([`labels/${name}.png`, png], [`overlays/${name}.jpg`, item.overlay]);
  }
  const listed = done.filter((item) => !item.labels).map((item) => [item.name, item.answer.json.objects ?? []]); // of corrected maps nobody knows them
  files.push(["objects.csv", new TextEncoder().encode(objectsCsv(listed))]);
  const summary = { model: state.model, pairs: batch.items.map((item) => describe(state, item)) };
  files.push(["summary.json", new TextEncoder().encode(JSON.stringify(summary, null, 1))]);
  return files;
}

function encodeCorrected(state, item) {
  const result = new Result(item.answer.json, state.tableOf(item.answer.json), null);
  return encodePng(item.labels, item.answer.json.size, result.palette);
}

function describe(state, item) {
  if (!item.answer) return { name: item.name, state: item.state, error: item.error || undefined };
  const { size, confidence, seconds, modalities, note, segments } = item.answer.json;
  const shares = {};
  if (item.labels) {
    const result = new Result(item.answer.json, state.tableOf(item.answer.json), null);
    result.restore(item.labels);
    for (const [id, pixels] of result.counts) shares[result.classOf(id).name] = Number((pixels / item.labels.length).toFixed(6));
  } else {
    for (const { name, share } of segments) shares[name] = share;
  }
  const time = item.time ?? undefined;
  const corrected = Boolean(item.labels);
  const sure = corrected ? undefined : confidence; // of a corrected map nobody knows it
  return { name: item.name, state: "done", time, size, modalities, seconds, confidence: sure, corrected, shares, note: note || undefined };
}
