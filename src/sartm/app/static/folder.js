// The folder to annotate: stepping through its pairs and saving their labels.

import { request, requestFile, requestJson } from "./api.js";
import { encodePng } from "./codec.js";
import { $, onClick } from "./dom.js";
import { label } from "./labelling.js";
import { attempt, confirmLoss, say } from "./notices.js";
import { showFiles } from "./pictures.js";
import { Result } from "./result.js";

export function wireFolder(state) {
  state.on("results edits", () => drawFolder(state));
  onClick("previous", () => goBack(state));
  onClick("next", () => goOn(state));
  onClick("save", () => save(state));
}

/** Begin at the first pair that is not saved. */
export async function openFolder(state) {
  const annotation = await requestJson("/v1/annotation");
  if (!annotation.pairs.length) return;
  state.annotation = annotation;
  await step(state, Math.max(annotation.pairs.findIndex((pair) => !pair.saved), 0));
}

async function step(state, index) {
  const { annotation } = state;
  if (index < 0 || index >= annotation.pairs.length || !confirmLoss(state)) return;
  const run = ++state.run;
  await attempt(state, async () => {
    const pair = annotation.pairs[index];
    const files = { rgb: null, thermal: null };
    for (const kind of ["rgb", "thermal"]) {
      if (pair[kind]) files[kind] = await requestFile(`/v1/annotation/${index}/${kind}`, pair.name);
    }
    const inputs = await showFiles(files);
    const saved = pair.labelled ? await savedResult(state, index) : null;
    if (run !== state.run) return;
    Object.assign(state, { pairIndex: index, lastPairIndex: index, inputs, saved, wantsEditing: true, mode: "both" });
    state.results.clear();
    state.changed("inputs");
    await label(state);
  });
}

/** To the next pair, or back to the one that was left for something else. */
export function goOn(state) {
  if (state.annotation) step(state, state.pair ? state.pairIndex + 1 : state.lastPairIndex);
}

export function goBack(state) {
  if (state.pair) step(state, state.pairIndex - 1);
}

async function savedResult(state, index) {
  const json = await requestJson(`/v1/annotation/${index}/label`);
  return new Result({ ...json, note: "", modalities: [] }, state.annotation, state.highlighted);
}

export async function save(state) {
  const { annotation, current, pair, pairIndex } = state;
  if (!pair || !current) return;
  const done = await attempt(state, async () => {
    const body = await encodePng(current.map.labels, current.map.size);
    await request(`/v1/annotation/${pairIndex}/label`, { method: "PUT", body });
    return true;
  });
  if (!done) return;
  current.unsaved = false;
  Object.assign(pair, { saved: true, labelled: true });
  say(`Saved ${pair.name}`, true);
  drawFolder(state);
  await step(state, pairIndex + 1);
}

function drawFolder({ annotation, comparing, current, pair, pairIndex }) {
  $("folder").hidden = !annotation;
  if (!annotation) return;
  const { pairs, name } = annotation;
  const done = pairs.filter(({ saved }) => saved).length;
  $("pair").textContent = pair?.name ?? name;
  $("progress").textContent = pair ? `${pairIndex + 1} of ${pairs.length}, ${done} saved` : `${done} of ${pairs.length} saved`;
  $("previous").disabled = !pairIndex;
  $("next").disabled = Boolean(pair) && pairIndex + 1 >= pairs.length;
  $("save").disabled = !pair || !current || comparing;
  $("saved").hidden = !pair?.saved || Boolean(current?.unsaved);
}
