// The bar for correcting: whether, with which tool, which class, and how large.

import { $, checkRadio, onClick, onRadio } from "./dom.js";
import { readable } from "./result.js";

export function wireCorrection(state, stage, pen) {
  state.on("results", () => drawEditing(state));
  state.on("results edits", () => drawHistory(state.current?.history));
  onClick("edit", () => toggleEditing(state));
  onClick("undo", () => pen.undo());
  onClick("redo", () => pen.redo());
  onRadio("tool", (tool) => setTool(state, tool));
  $("size").addEventListener("input", () => setSize(stage, $("size").value));
  $("paint").addEventListener("change", () => setPaint(state, Number($("paint").value)));
}

export function toggleEditing(state) {
  state.wantsEditing = !state.editing;
  drawEditing(state);
}

function drawEditing(state) {
  const on = state.wantsEditing && Boolean(state.current) && !state.comparing;
  const changes = on !== state.editing;
  state.editing = on;
  $("tools").hidden = !on;
  $("edit").hidden = state.comparing;
  $("edit").setAttribute("aria-pressed", String(on));
  $("edit").textContent = on ? "Done" : "Correct";
  document.body.classList.toggle("painting", on);
  if (on && changes && state.highlighted !== null) state.toggleHighlight(state.highlighted);
  if (on) fillPicker(state);
  else if (changes) state.changed("choice");
}

function fillPicker(state) {
  const { classes } = state.current;
  const key = classes.map(({ name }) => name).join("\n");
  if ($("paint").dataset.key !== key) {
    $("paint").dataset.key = key;
    $("paint").replaceChildren(...classes.map(({ id, name }) => new Option(readable(name), id)));
    if (!classes.some(({ id }) => id === state.paint)) state.paint = classes[0].id;
  }
  setPaint(state, state.paint);
}

export function setPaint(state, id) {
  state.paint = id;
  $("paint").value = id;
  $("ink").style.background = `rgb(${state.current.classOf(id).colour})`;
  if (state.tool === "eraser") setTool(state, "brush");
  state.changed("choice");
}

export function nextPaint(state) {
  if (!state.editing) return;
  const ids = state.current.classes.map(({ id }) => id);
  setPaint(state, ids[(ids.indexOf(state.paint) + 1) % ids.length]);
}

/** Classes by the digits 1 to 9, the leftover of the others not counted. */
export function numbered(result) {
  return result.table.classes.filter(({ rest }) => !rest).slice(0, 9);
}

export function paintNumber(state, number) {
  const entry = numbered(state.current)[number - 1];
  if (entry) setPaint(state, entry.id);
}

export function setTool(state, tool) {
  state.tool = tool;
  checkRadio("tool", tool);
}

/** Diameter of brush and eraser in pixels of the picture. */
export function setSize(stage, value) {
  $("size").value = value;
  $("diameter").textContent = $("size").value;
  stage.hover(stage.state.pointer);
}

function drawHistory(history) {
  $("undo").disabled = !history?.done.length;
  $("redo").disabled = !history?.undone.length;
}
