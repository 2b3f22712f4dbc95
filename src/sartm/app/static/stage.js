// The panes in which pictures and classes are looked at.

import { beginStroke, cancelStroke, continueStroke, drawHistory, endStroke, showEditing } from "./correction.js";
import { $ } from "./dom.js";
import { drawFolder } from "./folder.js";
import { drawLegend } from "./legend.js";
import { readout } from "./readout.js";
import { MODES, PLAIN, baseOf, current, modes, state } from "./state.js";
import { Pane, View } from "./viewer.js";

export const view = new View();
export const panes = [];

export function refresh() {
  const shown = modes();
  document.body.classList.toggle("comparing", shown.length > 1);
  if (shown.length > 1) shown.push(PLAIN);
  while (panes.length < shown.length) panes.push(createPane());
  panes.forEach((pane, index) => {
    const mode = shown[index];
    pane.figure.hidden = !mode;
    if (!mode) return;
    pane.mode = mode;
    const result = state.results.get(mode);
    pane.base = baseOf(result, shown.length > 1 && state.inputs[mode] ? mode : state.base);
    pane.colours = result?.colours ?? null;
    pane.map = (result ?? state.results.get(shown[0]))?.map ?? null;
    pane.opacity = $("opacity").value / 100;
    pane.caption.hidden = shown.length === 1;
    const title = mode === PLAIN ? "Picture" : `Picture and classes, ${MODES[mode]}`;
    pane.canvas.setAttribute("aria-label", `${title}. Arrow keys move it.`);
    pane.draw();
  });
  const size = panes[0]?.size?.join();
  if (size && size !== state.size) {
    state.size = size;
    panes[0].fit();
  }
  const result = current();
  for (const input of document.getElementsByName("base")) {
    input.disabled = input.value === "confidence" ? !result?.bitmap : !state.inputs[input.value];
    input.checked = input.value === state.base;
  }
  $("result").hidden = $("saves").hidden = !result;
  $("edit").hidden = shown.length > 1;
  $("note").textContent = result?.json.note ?? "";
  $("note").hidden = !result?.json.note;
  showEditing(state.wish && Boolean(result) && shown.length === 1);
  drawLegend();
  drawHistory();
  drawFolder();
  readout();
}

function createPane() {
  const figure = Object.assign(document.createElement("figure"), { className: "pane" });
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const caption = document.createElement("figcaption");
  figure.append(canvas, caption);
  $("panes").append(figure);
  const pane = new Pane(canvas, view, {
    paints: () => state.editing,
    hover: (point) => hover(point),
    leave: () => hover(null),
    begin: (point) => beginStroke(point),
    draw: (point) => continueStroke(point),
    end: () => endStroke(),
    cancel: () => cancelStroke(),
  });
  return Object.assign(pane, { figure, caption });
}

export function hover(point) {
  state.pointer = point;
  const ring = state.editing && point && state.tool !== "fill" ? { ...point, radius: $("size").value / 2 } : null;
  for (const pane of panes) {
    pane.ring = ring;
    if (ring) pane.draw();
  }
  readout();
}

/** What the keyboard reads: the middle of the picture that has the focus. */
export function middle() {
  const pane = panes.find((one) => one.canvas === document.activeElement);
  return pane ? view.at(pane.width / 2, pane.height / 2) : null;
}

export function setBase(base) {
  state.base = base;
  refresh();
}

export function zoomBy(factor) {
  const pane = panes[0];
  if (pane?.size) view.zoom(factor, pane.width / 2, pane.height / 2);
}

view.addEventListener("change", () => {
  $("scale").textContent = `${Math.round(100 * view.scale)} %`;
  document.body.classList.toggle("zoomed", view.zoomed);
  if (!state.pointer) readout();
});

export function setOpacity(value) {
  $("opacity").value = value;
  for (const pane of panes) {
    pane.opacity = $("opacity").value / 100;
    pane.draw();
  }
  localStorage.setItem("opacity", $("opacity").value);
}

let strongest = 60;

export function toggleOverlay() {
  const value = Number($("opacity").value);
  if (value) strongest = value;
  setOpacity(value ? 0 : strongest);
}
