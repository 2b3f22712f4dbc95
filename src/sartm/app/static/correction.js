// The bar for correcting: whether, with which tool, which class, and how large.

import { whyNoClicks } from "./clicks.js";
import { $, checkRadio, onClick, onRadio } from "./dom.js";
import { say } from "./notices.js";
import { percent, readable } from "./result.js";

export function wireCorrection(state, stage, pen) {
  state.on("results", () => drawEditing(state));
  state.on("results edits preview", () => drawHistory(state));
  state.on("list results preview", () => drawClicking(state));
  onClick("edit", () => toggleEditing(state));
  onClick("undo", () => pen.undo());
  onClick("redo", () => pen.redo());
  onClick("accept", () => pen.clicks.accept());
  onClick("drop-found", () => pen.clicks.drop());
  onClick("takes", () => {
    state.takesAway = !state.takesAway;
    drawClicking(state);
  });
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
  const refused = tool === "click" && state.editing ? whyNoClicks(state) : "";
  if (refused) return say(refused);
  state.tool = tool;
  checkRadio("tool", tool);
  drawClicking(state);
  state.changed("choice");
}

/** What belongs to clicks alone; its place is kept, so that the picture does not move between two clicks. */
function drawClicking(state) {
  const { current, paint, preview, takesAway, tool } = state;
  const refused = Boolean(whyNoClicks(state));
  if (refused && tool === "click") return setTool(state, "brush");
  $("click-tool").hidden = refused;
  $("clicking").hidden = tool !== "click";
  $("size-row").hidden = tool === "click";
  $("accept").disabled = $("drop-found").disabled = $("takes").disabled = !preview?.answer;
  $("takes").setAttribute("aria-pressed", String(takesAway));
  const touch = matchMedia("(pointer: coarse)").matches;
  const hint = touch ? "Tap a thing; press long to take away; drag a box" : "Click a thing; Alt-click takes away; drag a box";
  const { answer } = preview ?? {};
  $("found").textContent = !answer ? hint : !answer.pixels ? "Nothing found there" : `${readable(current.classOf(paint).name)}: ${answer.pixels} pixels, ${percent(answer.score)} sure`;
}

/** Diameter of brush and eraser in pixels of the picture. */
export function setSize(stage, value) {
  $("size").value = value;
  $("diameter").textContent = $("size").value;
  stage.hover(stage.state.pointer);
}

function drawHistory({ current, preview }) {
  $("undo").disabled = !current?.history.done.length && !preview;
  $("redo").disabled = !current?.history.undone.length || Boolean(preview);
}
