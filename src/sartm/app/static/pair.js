// The pair of pictures: chosen, dropped or pasted, and shown in its two slots.

import { $ } from "./dom.js";
import { label, setMode } from "./labelling.js";
import { attempt, mayLeave } from "./notices.js";
import { looksThermal, showAll } from "./pictures.js";
import { leaveFolder, state } from "./state.js";

export async function place(files, kind = null) {
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
export async function choose(chosen) {
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

export function drawInputs() {
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

export function browse(kind) {
  $("file").dataset.kind = kind ?? "";
  $("file").multiple = !kind;
  $("file").click();
}

export function wireSlot(kind) {
  const slot = $(`slot-${kind}`);
  slot.querySelector(".pick").addEventListener("click", () => browse(kind));
  slot.querySelector(".remove").addEventListener("click", () => {
    if (!mayLeave()) return;
    if (state.folder) state.folder = null;
    choose({ [kind]: null });
  });
}

export function wireDrops() {
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
