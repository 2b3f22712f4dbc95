// What keys do.

import { nextPaint, setSize, setTool, toggleEditing } from "./correction.js";
import { $, onClick } from "./dom.js";
import { goBack, goOn, save } from "./folder.js";

const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

export function wireKeyboard(state, stage, pen) {
  const actions = keyActions(state, stage);
  document.addEventListener("keydown", (event) => onKey(event, actions, state, stage, pen));
  onClick("help", actions["?"]);
}

function keyActions(state, stage) {
  return {
    1: () => state.inputs.rgb && state.setBase("rgb"),
    2: () => state.inputs.thermal && state.setBase("thermal"),
    3: () => state.current?.bitmap && state.setBase("confidence"),
    o: () => stage.toggleClasses(),
    "[": () => stage.setOpacity(Number($("opacity").value) - 10),
    "]": () => stage.setOpacity(Number($("opacity").value) + 10),
    "{": () => setSize(stage, Math.round($("size").value / 1.3 - 0.5)),
    "}": () => setSize(stage, Math.round($("size").value * 1.3 + 0.5)),
    "+": () => stage.zoom(1.4),
    "=": () => stage.zoom(1.4),
    "-": () => stage.zoom(1 / 1.4),
    0: () => stage.fit(),
    c: () => state.current && toggleEditing(state),
    b: () => setTool(state, "brush"),
    e: () => setTool(state, "eraser"),
    f: () => setTool(state, "fill"),
    q: () => nextPaint(state),
    p: () => goBack(state),
    n: () => goOn(state),
    s: () => save(state),
    "?": () => $("keys").showModal(),
  };
}

function onKey(event, actions, state, stage, pen) {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "z" && !event.shiftKey) pen.undo();
    else pen.redo();
    return;
  }
  const onCanvas = document.activeElement?.tagName === "CANVAS";
  if (onCanvas && ARROWS[key]) {
    event.preventDefault();
    state.pointer = null;
    stage.view.pan(...ARROWS[key]);
  } else if (onCanvas && key === " ") {
    event.preventDefault();
    if (state.editing && stage.middle) pen.dab(stage.middle);
  } else if (actions[key] && !event.altKey && document.activeElement?.tagName !== "SELECT") {
    actions[key]();
  }
}
