// What the page knows: pictures, label maps, what is chosen.

import { $ } from "./dom.js";

export const MODES = { both: "Both", rgb: "RGB alone", thermal: "Thermal alone" };
export const PLAIN = "picture"; // side by side there is one without classes, too

export const state = {
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

export function classTable() {
  if (state.folder) return state.folder;
  const model = state.models.find((one) => one.name === $("model").value) ?? state.models[0];
  return { classes: model.classes, ignore: model.ignore };
}

export function modes() {
  return state.mode === "compare" ? Object.keys(MODES) : [state.mode];
}

export function current() {
  return state.results.get(modes()[0]);
}

export function baseOf(result, base = state.base) {
  if (state.base === "confidence" && result?.bitmap) return result.bitmap;
  const { rgb, thermal } = state.inputs;
  return (state.inputs[base] ?? rgb ?? thermal)?.bitmap ?? null;
}

export function leaveFolder() {
  if (!state.folder) return;
  state.folder = null;
  state.inputs = { rgb: null, thermal: null };
  state.wish = false;
}
