// The pair of pictures: chosen, dropped or pasted, and shown in its two slots.

import { $, checkRadio, onClick } from "./dom.js";
import { label, setMode } from "./labelling.js";
import { attempt, confirmLoss } from "./notices.js";
import { looksThermal, showFiles } from "./pictures.js";

const KINDS = ["rgb", "thermal"];

/** Take files of the user; without a kind, it is guessed which is which. */
async function place(state, files, kind = null) {
  if (!files.length || !confirmLoss(state)) return;
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
  state.leaveFolder();
  await choose(state, chosen);
}

/** Take new pictures (null removes one) and label them. */
export async function choose(state, files) {
  const run = ++state.run;
  await attempt(state, async () => {
    const inputs = await showFiles(files);
    if (run !== state.run) return;
    if (state.inputs.thermal?.inside) state.inputs.thermal = null;
    Object.assign(state.inputs, inputs);
    state.results.clear();
    state.saved = null;
    state.changed("inputs");
    await label(state);
  });
}

function drawPair(state) {
  const { rgb, thermal } = state.inputs;
  const any = Boolean(rgb || thermal);
  const both = Boolean(rgb && thermal);
  for (const kind of KINDS) drawSlot($(`slot-${kind}`), state.inputs[kind]);
  $("resize-row").hidden = !state.sizesDiffer;
  if (!state.inputs[state.base] && state.base !== "confidence") state.base = rgb ? "rgb" : "thermal";
  for (const id of ["views", "panes", "sees"]) $(id).hidden = !any;
  $("empty").hidden = any;
  $("chips").hidden = !any || !$("chips").children.length;
  document.body.classList.toggle("start", !any);
  for (const input of document.getElementsByName("mode")) input.disabled = !both;
  checkRadio("mode", state.mode);
  if (!both && state.mode !== "both") setMode(state, "both");
}

function drawSlot(slot, input) {
  slot.classList.toggle("filled", Boolean(input));
  slot.querySelector(".remove").hidden = !input || Boolean(input.inside);
  slot.querySelector(".name").textContent = input?.name ?? "";
  const canvas = slot.querySelector("canvas");
  canvas.width = input ? 320 : 0;
  canvas.height = input ? Math.round((320 * input.bitmap.height) / input.bitmap.width) : 0;
  if (input) canvas.getContext("2d").drawImage(input.bitmap, 0, 0, canvas.width, canvas.height);
}

function browse(kind) {
  $("file").dataset.kind = kind ?? "";
  $("file").multiple = !kind;
  $("file").click();
}

export function wirePair(state) {
  state.on("inputs", () => drawPair(state));
  onClick("browse", () => browse(null));
  $("file").addEventListener("change", () => {
    place(state, [...$("file").files], $("file").dataset.kind || null);
    $("file").value = "";
  });
  for (const kind of KINDS) {
    const slot = $(`slot-${kind}`);
    slot.querySelector(".pick").addEventListener("click", () => browse(kind));
    slot.querySelector(".remove").addEventListener("click", () => {
      if (!confirmLoss(state)) return;
      state.pairIndex = null;
      choose(state, { [kind]: null });
    });
  }
  wireDrops(state);
}

function wireDrops(state) {
  const filesOf = (data) => [...(data?.files ?? [])];
  const slotOf = (event) => event.target.closest?.(".slot");
  const kindOf = (slot) => slot?.id.replace("slot-", "");
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
    place(state, filesOf(event.dataTransfer), kindOf(slotOf(event)));
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    const slot = document.activeElement?.closest(".slot");
    const free = state.inputs.rgb && !state.inputs.thermal ? "thermal" : null;
    if (files.length) place(state, files, kindOf(slot) ?? free);
  });
}
