// Label maps from the service, one per choice of what the model sees.

import { form, requestPatiently } from "./api.js";
import { $, checkRadio, onRadio } from "./dom.js";
import { attempt } from "./notices.js";
import { isRadiometric, showFile } from "./pictures.js";
import { readResult, unpack } from "./result.js";

/** What the service makes of the files of one pair; `mode` is what the model may see. */
export async function segment(state, { rgb, thermal }, mode, resize) {
  const fields = {
    rgb, thermal, model: state.model, modality: mode, output: "json", maps: "true", resize_thermal: resize,
    radiometric: thermal && (await isRadiometric(thermal)) ? "true" : null,
    four_channel: state.fourChannel === "auto" ? null : state.fourChannel,
    thermal_range: state.range || null, classes: state.pair ? null : state.words.join(", ") || null,
    objects: "true", degrees: state.degrees && thermal && !(await isRadiometric(thermal)) ? state.degrees : null,
  };
  return unpack(await (await requestPatiently("/v1/segment", form(fields))).json());
}

/** Get what is shown and not there yet. */
export async function label(state) {
  const run = ++state.run;
  const { rgb, thermal } = state.inputs;
  if (!(rgb || thermal) || (state.sizesDiffer && !$("resize").checked)) return state.changed("results");
  if (state.saved && state.mode === "both") state.results.set("both", state.saved);
  state.changed("results");
  for (const mode of state.shownModes) {
    if (state.results.has(mode) || (mode === "both" && ["waiting", "working"].includes(state.item?.state))) continue;
    await attempt(state, async () => {
      const answer = await segment(state, { rgb: rgb?.file, thermal: thermal?.file }, mode, state.sizesDiffer);
      const result = await readResult(state, answer);
      if (run !== state.run) return;
      await takeResult(state, mode, result);
    });
    if (run !== state.run) return;
  }
}

/** Show a result, and the thermal image that the service found in the RGB file. */
export async function takeResult(state, mode, result) {
  const { rgb, thermal } = state.inputs;
  state.results.set(mode, result);
  if (!thermal && rgb && result.json.modalities.includes("thermal")) {
    const shown = await showFile(rgb.file, "fourth");
    if (state.results.get(mode) !== result) return;
    state.inputs.thermal = { ...shown, file: null, name: "4th channel", inside: true };
    state.changed("inputs");
  }
  state.changed("results");
}

export function setMode(state, mode) {
  state.mode = mode;
  checkRadio("mode", mode);
  if (!state.comparing) state.fittedSize = null; // the pane's width changes: fit again
  label(state);
}

/** Label anew: other results are wanted of the same pictures. */
export function relabel(state) {
  if (state.inputs.thermal?.inside) state.inputs.thermal = null;
  state.results.clear();
  label(state);
}

export function wireLabelling(state) {
  onRadio("mode", (mode) => setMode(state, mode));
}
