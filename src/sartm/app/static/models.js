// The choice of the model, and of fitting sizes: both label anew.

import { retryFailed } from "./batch.js";
import { $ } from "./dom.js";
import { relabel } from "./labelling.js";
import { labelAgain } from "./list.js";

export function wireModels(state) {
  $("model").addEventListener("change", () => {
    if (!labelAgain(state, () => {
      state.model = $("model").value;
      state.words = []; // another model knows other words
    })) $("model").value = state.model;
  });
  $("resize").addEventListener("change", () => {
    if (state.batch) retryFailed(state);
    if (!state.item) relabel(state);
  });
}
