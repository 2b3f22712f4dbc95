// The pair of pictures: chosen, dropped or pasted, and shown in its two slots.

import { createItem, exchangeBatch, startBatch } from "./batch.js";
import { $, checkRadio, onClick } from "./dom.js";
import { filmItems, openFilm } from "./film.js";
import { label, setMode } from "./labelling.js";
import { mayLose } from "./list.js";
import { attempt, confirmLoss, say } from "./notices.js";
import { filesOfDrop, isFilm, keepPictures, pairFiles, pathOf } from "./pairing.js";
import { lookExchanged, looksThermal, showFiles } from "./pictures.js";

const KINDS = ["rgb", "thermal"];

/** Take files of the user: a film, one or two pictures, or many; without a kind, it is guessed which is which. */
async function place(state, files, kind = null) {
  if (!files.length || !confirmLoss(state)) return;
  const films = files.filter(isFilm);
  const folder = files.some((file) => pathOf(file).includes("/"));
  if (films.length) {
    await attempt(state, () => placeFilm(state, films));
  } else if (files.length > 2 || folder) {
    await attempt(state, () => placeMany(state, files));
  } else {
    const chosen = kind && files.length === 1 ? { [kind]: files[0] } : await guessKinds(files);
    state.leaveList();
    await choose(state, chosen);
  }
}

async function guessKinds(files) {
  const thermal = await Promise.all(files.map(looksThermal));
  if (files.length === 1) return { [thermal[0] ? "thermal" : "rgb"]: files[0] };
  const exchanged = thermal[0] && !thermal[1]; // the first is thermal only if the other is not
  return { rgb: files[exchanged ? 1 : 0], thermal: files[exchanged ? 0 : 1] };
}

async function placeMany(state, files) {
  const { pairs, lone } = await pairFiles(keepPictures(files));
  if (!pairs.length) return say("No pictures among these files.");
  if (pairs.length === 1) {
    const { rgb, thermal } = pairs[0];
    state.leaveList();
    return choose(state, { rgb, thermal });
  }
  if (!mayLose(state)) return undefined;
  const items = pairs.map(({ name, rgb, thermal }) => createItem(name, () => ({ rgb, thermal })));
  const [top] = pathOf(files[0]).split("/");
  return startBatch(state, { items, lone, title: top === files[0].name ? "pairs" : top });
}

async function placeFilm(state, files) {
  if (!mayLose(state)) return;
  const film = await openFilm(files);
  const items = filmItems(film, Number($("rate").value));
  await startBatch(state, { items, title: film.title, film });
}

/** Take new pictures (null removes one) and label them. */
export async function choose(state, files) {
  const run = ++state.run;
  Object.assign(state.offered, files);
  if (files.rgb || files.thermal) Object.assign(state, { window: null, range: "", fourChannel: "auto" });
  await attempt(state, async () => {
    const inputs = await showFiles(files).catch((error) => {
      drawExchange(state);
      throw error;
    });
    if (run !== state.run) return;
    if (state.inputs.thermal?.inside) state.inputs.thermal = null;
    Object.assign(state.inputs, inputs);
    state.results.clear();
    state.saved = null;
    state.changed("inputs");
    await label(state);
  });
}

/** Offer to swap the two where each looks like the other. */
async function drawExchange(state) {
  const { rgb, thermal } = state.offered;
  const exchanged = await lookExchanged(rgb, thermal);
  if (rgb !== state.offered.rgb || thermal !== state.offered.thermal) return;
  $("swap-row").hidden = !exchanged;
  $("swap").textContent = state.item ? "Swap all" : "Swap them";
}

async function exchange(state) {
  if (!mayLose(state) || !confirmLoss(state)) return;
  $("swap-row").hidden = true;
  if (state.item) return exchangeBatch(state);
  const { rgb, thermal } = state.offered;
  return choose(state, { rgb: thermal, thermal: rgb });
}

function drawPair(state) {
  const { rgb, thermal } = state.inputs;
  const any = Boolean(rgb || thermal || state.item);
  const both = Boolean(rgb && thermal);
  for (const kind of KINDS) drawSlot($(`slot-${kind}`), state.inputs[kind]);
  $("resize-row").hidden = !state.sizesDiffer;
  if (!state.inputs[state.base] && state.base !== "confidence") state.base = rgb ? "rgb" : "thermal";
  for (const id of ["views", "panes", "sees"]) $(id).hidden = !any;
  $("empty").hidden = any;
  $("chips").hidden = !any || !$("chips").children.length;
  $("more").hidden = !any;
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
  state.on("inputs", () => drawExchange(state));
  onClick("swap", () => exchange(state));
  for (const id of ["browse", "more-files"]) onClick(id, () => browse(null));
  for (const id of ["browse-folder", "more-folder"]) onClick(id, () => $("file-folder").click());
  for (const input of [$("file"), $("file-folder")]) {
    input.addEventListener("change", () => {
      place(state, [...input.files], input.dataset.kind || null);
      input.value = "";
    });
  }
  for (const kind of KINDS) {
    const slot = $(`slot-${kind}`);
    slot.querySelector(".pick").addEventListener("click", () => browse(kind));
    slot.querySelector(".remove").addEventListener("click", () => {
      if (!confirmLoss(state)) return;
      state.pairIndex = state.itemIndex = null;
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
    const kind = kindOf(slotOf(event));
    attempt(state, async () => place(state, await filesOfDrop(event.dataTransfer), kind));
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    const slot = document.activeElement?.closest(".slot");
    const free = state.inputs.rgb && !state.inputs.thermal ? "thermal" : null;
    if (files.length) place(state, files, kindOf(slot) ?? free);
  });
}
