// The start of the page: its controls, the models, the first pictures. Uses the REST API only.

import { ask, takeToken } from "./api.js";
import { setEditing, setPaint, setSize, setTool, travel } from "./correction.js";
import { $ } from "./dom.js";
import { download, jsonBlob, labelBlob, overlayBlob, stem } from "./downloads.js";
import { drawExamples, listExamples } from "./examples.js";
import { goOn, openFolder, save, step } from "./folder.js";
import { onKey } from "./keyboard.js";
import { label, setMode } from "./labelling.js";
import { attempt, mayLeave } from "./notices.js";
import { browse, place, wireDrops, wireSlot } from "./pair.js";
import { panes, setBase, setOpacity, zoomBy } from "./stage.js";
import { current, state } from "./state.js";
import { switchTheme, theme } from "./theme.js";

function wire() {
  document.addEventListener("keydown", onKey);
  for (const input of document.getElementsByName("base")) input.addEventListener("change", () => setBase(input.value));
  for (const input of document.getElementsByName("mode")) input.addEventListener("change", () => setMode(input.value));
  for (const input of document.getElementsByName("tool")) input.addEventListener("change", () => setTool(input.value));
  const clicks = {
    in: () => zoomBy(1.4), out: () => zoomBy(1 / 1.4), fit: () => panes[0].fit(),
    undo: () => travel("undo"), redo: () => travel("redo"),
    edit: () => setEditing(!state.editing),
    previous: () => step(state.folder.index - 1), next: goOn, save,
    help: () => $("keys").showModal(), theme: switchTheme, browse: () => browse(null),
    "get-labels": async () => download(await labelBlob(current()), `${stem()}_labels.png`),
    "get-overlay": async () => download(await overlayBlob(current()), `${stem()}_overlay.png`),
    "get-json": () => download(jsonBlob(current()), `${stem()}_segments.json`),
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  $("opacity").addEventListener("input", () => setOpacity($("opacity").value));
  $("size").addEventListener("input", () => setSize($("size").value));
  $("paint").addEventListener("change", () => setPaint(Number($("paint").value)));
  $("resize").addEventListener("change", () => (state.results.clear(), label()));
  $("model").addEventListener("change", () => {
    if (!mayLeave()) {
      $("model").value = state.model;
      return;
    }
    state.model = $("model").value;
    state.results.clear();
    state.saved = null;
    label();
  });
  $("file").addEventListener("change", () => {
    place([...$("file").files], $("file").dataset.kind || null);
    $("file").value = "";
  });
  for (const kind of ["rgb", "thermal"]) wireSlot(kind);
  wireDrops();
  window.addEventListener("beforeunload", (event) => {
    if ([...state.results.values()].some((one) => one.unsaved)) event.preventDefault();
  });
}

async function start() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  theme(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => localStorage.getItem("theme") ?? theme(dark.matches ? "dark" : "light"));
  takeToken();
  $("opacity").value = localStorage.getItem("opacity") ?? 60;
  document.body.classList.add("start");
  wire();
  await attempt(async () => {
    const answer = await (await ask("/v1/models")).json();
    state.models = answer.models;
    $("model").replaceChildren(...answer.models.map((one) => new Option(one.name, one.name)));
    state.model = $("model").value;
    await listExamples().catch(() => undefined); // a page without examples is still a page
    if (answer.annotation) await openFolder();
  });
  document.documentElement.dataset.ready = "yes";
  await drawExamples().catch(() => undefined);
}

start();
