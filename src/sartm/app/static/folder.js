// The folder to annotate: stepping through its pairs and saving their labels.

import { ask, fetchFile } from "./api.js";
import { encodePng } from "./codec.js";
import { $ } from "./dom.js";
import { label } from "./labelling.js";
import { attempt, mayLeave, say } from "./notices.js";
import { drawInputs } from "./pair.js";
import { showAll } from "./pictures.js";
import { createResult } from "./result.js";
import { current, state } from "./state.js";

export async function openFolder() {
  const info = await (await ask("/v1/annotation")).json();
  if (!info.pairs.length) return;
  state.listed = info;
  const first = info.pairs.findIndex((pair) => !pair.saved);
  await step(Math.max(first, 0));
}

export async function step(index) {
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
export function goOn() {
  step(state.folder ? state.folder.index + 1 : state.at);
}

async function savedResult(index) {
  const json = await (await ask(`/v1/annotation/${index}/label`)).json();
  return createResult({ ...json, note: "", modalities: [] }, state.listed);
}

export async function save() {
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

export function drawFolder() {
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
