// Correcting a label map: tools, strokes, undo and redo.

import { $ } from "./dom.js";
import { fill, join, stroke } from "./editor.js";
import { drawFolder } from "./folder.js";
import { drawLegend, setOnly } from "./legend.js";
import { readout } from "./readout.js";
import { coloursOf, count, readable } from "./result.js";
import { hover, middle, panes } from "./stage.js";
import { current, state } from "./state.js";

let pen = null; // the stroke in the making: {before, last, changed}

export function setEditing(on) {
  state.wish = on;
  showEditing(on && Boolean(current()) && state.mode !== "compare");
}

export function showEditing(on) {
  const changes = on !== state.editing;
  state.editing = on;
  $("tools").hidden = !on;
  $("edit").setAttribute("aria-pressed", String(on));
  $("edit").textContent = on ? "Done" : "Correct";
  document.body.classList.toggle("painting", on);
  if (on && changes && state.only !== null) setOnly(state.only);
  if (on) fillPicker();
  if (!on) for (const pane of panes) pane.ring = null;
  if (changes) drawLegend();
}

function fillPicker() {
  const table = coloursOf(current().table);
  const key = table.map((one) => one.name).join("\n");
  if ($("paint").dataset.key !== key) {
    $("paint").dataset.key = key;
    $("paint").replaceChildren(...table.map((one) => new Option(readable(one.name), one.id)));
    if (!table.some((one) => one.id === state.paint)) state.paint = table[0].id;
  }
  setPaint(state.paint);
}

export function setPaint(id) {
  state.paint = id;
  $("paint").value = id;
  const found = coloursOf(current().table).find((one) => one.id === id);
  $("ink").style.background = `rgb(${found.colour})`;
  if (state.tool === "eraser") setTool("brush");
  drawLegend();
}

export function setTool(tool) {
  state.tool = tool;
  for (const input of document.getElementsByName("tool")) input.checked = input.value === tool;
}

export function setSize(value) {
  $("size").value = value;
  $("diameter").textContent = $("size").value;
  hover(state.pointer);
}

function ink(result) {
  if (state.tool !== "eraser") return state.paint;
  return result.table.classes.find((one) => one.rest)?.id ?? result.table.ignore;
}

export function beginStroke(point) {
  const result = current();
  if (!result) return;
  pen = { result, before: result.map.labels.slice(), last: point, changed: null };
  if (state.tool === "fill") touched(fill(result.map, point, ink(result)));
  else continueStroke(point);
}

export function continueStroke(point) {
  if (!pen || state.tool === "fill") return;
  touched(stroke(pen.result.map, pen.last, point, $("size").value / 2, ink(pen.result)));
  pen.last = point;
}

function touched(changed) {
  if (!changed) return;
  pen.changed = join(pen.changed, changed);
  repaint(pen.result, changed);
}

function repaint(result, where) {
  result.colours.paint(coloursOf(result.table), state.only, where);
  for (const pane of panes) pane.draw();
}

export function endStroke() {
  if (pen?.changed) {
    pen.result.history.add(pen.result.map, pen.before, pen.changed);
    noteEdit(pen.result);
  }
  pen = null;
}

export function cancelStroke() {
  if (pen?.changed) {
    pen.result.map.labels.set(pen.before);
    repaint(pen.result, pen.changed);
  }
  pen = null;
}

/** Use the tool in the middle of the picture: correcting without a mouse. */
export function dab() {
  const point = middle();
  if (!state.editing || !point) return;
  beginStroke(point);
  endStroke();
}

function noteEdit(result) {
  result.edited = result.history.done.length > 0;
  result.unsaved = result.edited || Boolean(state.folder); // undone, it differs from its file
  count(result);
  drawLegend();
  drawHistory();
  drawFolder();
  readout();
}

export function travel(direction) {
  const result = current();
  const where = result && state.editing && result.history[direction](result.map);
  if (!where) return;
  repaint(result, where);
  noteEdit(result);
}

export function drawHistory() {
  const history = current()?.history;
  $("undo").disabled = !history?.done.length;
  $("redo").disabled = !history?.undone.length;
}
