// Label maps from the service, one per choice of what the model sees.

import { askPatiently, form } from "./api.js";
import { $ } from "./dom.js";
import { attempt } from "./notices.js";
import { drawInputs } from "./pair.js";
import { show } from "./pictures.js";
import { understand } from "./result.js";
import { refresh } from "./stage.js";
import { modes, state } from "./state.js";

export async function label() {
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

export function setMode(mode) {
  state.mode = mode;
  for (const input of document.getElementsByName("mode")) input.checked = input.value === mode;
  if (mode !== "compare") state.size = null; // the pane's width changes: fit again
  label();
}
