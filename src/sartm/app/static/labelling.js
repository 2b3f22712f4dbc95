// Label maps from the service, one per choice of what the model sees.

import { form, requestPatiently } from "./api.js";
import { $, checkRadio, onRadio } from "./dom.js";
import { attempt, confirmLoss } from "./notices.js";
import { showFile } from "./pictures.js";
import { readResult } from "./result.js";

/** Get what is shown and not there yet. */
export async function label(state) {
  const run = ++state.run;
  const { rgb, thermal } = state.inputs;
  if (!(rgb || thermal) || (state.sizesDiffer && !$("resize").checked)) return state.changed("results");
  if (state.saved && state.mode === "both") state.results.set("both", state.saved);
  state.changed("results");
  for (const mode of state.shownModes) {
    if (state.results.has(mode)) continue;
    const fields = {
      rgb: rgb?.file, thermal: thermal?.file, model: state.model,
      modality: mode, output: "json", maps: "true", resize_thermal: state.sizesDiffer,
    };
    await attempt(state, async () => {
      const answer = await requestPatiently("/v1/segment", form(fields));
      const result = await readResult(state, await answer.json());
      if (run !== state.run) return;
      state.results.set(mode, result);
      if (!state.inputs.thermal && result.json.modalities.includes("thermal")) {
        const bitmap = await showFile(rgb.file, "fourth");
        state.inputs.thermal = { file: null, bitmap, name: "4th channel", inside: true };
        state.changed("inputs");
      }
      state.changed("results");
    });
    if (run !== state.run) return;
  }
}

export function setMode(state, mode) {
  state.mode = mode;
  checkRadio("mode", mode);
  if (!state.comparing) state.fittedSize = null; // the pane's width changes: fit again
  label(state);
}

/** Label anew: other results are wanted of the same pictures. */
function relabel(state) {
  state.results.clear();
  label(state);
}

export function wireLabelling(state) {
  onRadio("mode", (mode) => setMode(state, mode));
  $("resize").addEventListener("change", () => relabel(state));
  $("model").addEventListener("change", () => {
    if (!confirmLoss(state)) {
      $("model").value = state.model;
      return;
    }
    state.model = $("model").value;
    state.saved = null;
    relabel(state);
  });
}
