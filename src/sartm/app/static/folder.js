// The folder to annotate: stepping through its pairs and saving their labels.

import { Refusal, request, requestFile, requestJson } from "./api.js";
import { encodePng } from "./codec.js";
import { $, onClick } from "./dom.js";
import { label } from "./labelling.js";
import { attempt, confirmLoss, say } from "./notices.js";
import { showFiles } from "./pictures.js";
import { Result } from "./result.js";

export function wireFolder(state) {
  state.on("results edits list", () => drawFolder(state));
  onClick("save", () => save(state));
}

/** Begin at the first pair that is not saved. */
export async function openFolder(state) {
  const annotation = await requestJson("/v1/annotation");
  if (!annotation.pairs.length) return;
  state.annotation = annotation;
  await openPair(state, Math.max(annotation.pairs.findIndex((pair) => !pair.saved), 0));
}

export async function openPair(state, index) {
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
    const { saved, tag } = pair.labelled ? await savedResult(state, index) : { saved: null, tag: "" };
    if (run !== state.run) return;
    state.itemIndex = null;
    Object.assign(state, { offered: files, pairIndex: index, lastPairIndex: index, inputs, saved, labelTag: tag, wantsEditing: true, mode: "both" });
    state.results.clear();
    state.changed("inputs");
    state.changed("list");
    await label(state);
  });
}

/** To the next pair, or back to the one that was left for something else. */
export function goOn(state) {
  if (state.annotation) openPair(state, state.pair ? state.pairIndex + 1 : state.lastPairIndex);
}

export function goBack(state) {
  if (state.pair) openPair(state, state.pairIndex - 1);
}

/** The label on disk, and the tag that says which version of it this is. */
async function savedResult(state, index) {
  const answer = await request(`/v1/annotation/${index}/label`);
  const json = { ...(await answer.json()), note: "", modalities: [] };
  const saved = new Result(json, state.annotation, state.highlighted);
  return { saved, tag: answer.headers.get("etag") ?? "" };
}

/** Save the label that is shown; while it is on its way a second click or key adds nothing. */
export async function save(state) {
  const { current, pair } = state;
  if (!pair || !current || current.saving) return;
  current.saving = true;
  try {
    await send(state);
  } finally {
    current.saving = false;
  }
}

async function send(state) {
  const { current, labelTag, pair, pairIndex } = state;
  await state.finish();
  const sent = current.map.labels.slice(); // who goes on painting meanwhile changes the map, not what is sent
  const outcome = await attempt(state, async () => {
    const body = await encodePng(sent, current.map.size);
    const headers = labelTag ? { "If-Match": labelTag } : {};
    try {
      const answer = await request(`/v1/annotation/${pairIndex}/label`, { method: "PUT", body, headers });
      if (state.pairIndex === pairIndex) state.labelTag = answer.headers.get("etag") ?? "";
    } catch (error) {
      if (error instanceof Refusal && [412, 428].includes(error.status)) return "theirs";
      throw error;
    }
    return "saved";
  });
  if (outcome === "theirs") {
    say(`Not saved: somebody else saved ${pair.name} meanwhile.`);
    pair.labelled = true;
    if (state.pairIndex === pairIndex) await offerTheirs(state);
  }
  if (outcome !== "saved") return;
  current.unsaved = current.map.labels.some((id, index) => id !== sent[index]);
  Object.assign(pair, { saved: true, labelled: true });
  say(`Saved ${pair.name}${current.unsaved ? ", without what you have changed since" : ""}`, true);
  state.changed("list");
  if (!current.unsaved && state.pairIndex === pairIndex) await openPair(state, pairIndex + 1);
}

/** Somebody else saved this label first: nothing is lost unless the user wants to load it. */
async function offerTheirs(state) {
  const { current, pair, pairIndex } = state;
  const question = `Somebody else saved ${pair.name} while you corrected it. Load what they saved, and lose your corrections? (To keep yours, cancel and download the label.)`;
  if (!window.confirm(question)) return;
  current.unsaved = false;
  await openPair(state, pairIndex);
}

function drawFolder(state) {
  const { annotation, batch, comparing, current, pair, pairIndex } = state;
  $("folder").hidden = !annotation && !batch;
  $("save").hidden = Boolean(batch);
  $("saved").hidden = true;
  if (batch) drawStep(state);
  if (batch || !annotation) return;
  const { pairs, name } = annotation;
  const done = pairs.filter(({ saved }) => saved).length;
  $("pair").textContent = pair?.name ?? name;
  $("progress").textContent = pair ? `${pairIndex + 1} of ${pairs.length}, ${done} saved` : `${done} of ${pairs.length} saved`;
  $("previous").disabled = !pairIndex;
  $("next").disabled = Boolean(pair) && pairIndex + 1 >= pairs.length;
  $("save").disabled = !pair || !current || comparing;
  $("saved").hidden = !pair?.saved || Boolean(current?.unsaved);
}

/** Of several pairs that were dropped: which of them this is. */
function drawStep({ batch, item, itemIndex }) {
  $("pair").textContent = item?.name ?? batch.title;
  $("progress").textContent = item ? `${itemIndex + 1} of ${batch.items.length}` : `${batch.items.length} pairs`;
  $("previous").disabled = !itemIndex;
  $("next").disabled = itemIndex !== null && itemIndex + 1 >= batch.items.length;
}
