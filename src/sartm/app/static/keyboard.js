// What keys do.

import { dab, setEditing, setPaint, setSize, setTool, travel } from "./correction.js";
import { $ } from "./dom.js";
import { goOn, save, step } from "./folder.js";
import { coloursOf } from "./result.js";
import { panes, setBase, setOpacity, toggleOverlay, view, zoomBy } from "./stage.js";
import { current, state } from "./state.js";

const KEYS = {
  1: () => state.inputs.rgb && setBase("rgb"),
  2: () => state.inputs.thermal && setBase("thermal"),
  3: () => current()?.bitmap && setBase("confidence"),
  o: toggleOverlay,
  "[": () => setOpacity(Number($("opacity").value) - 10),
  "]": () => setOpacity(Number($("opacity").value) + 10),
  "{": () => setSize(Math.round($("size").value / 1.3 - 0.5)),
  "}": () => setSize(Math.round($("size").value * 1.3 + 0.5)),
  "+": () => zoomBy(1.4),
  "=": () => zoomBy(1.4),
  "-": () => zoomBy(1 / 1.4),
  0: () => panes[0]?.fit(),
  c: () => current() && setEditing(!state.editing),
  b: () => setTool("brush"),
  e: () => setTool("eraser"),
  f: () => setTool("fill"),
  q: () => {
    if (!state.editing) return;
    const ids = coloursOf(current().table).map((one) => one.id);
    setPaint(ids[(ids.indexOf(state.paint) + 1) % ids.length]);
  },
  p: () => state.folder && step(state.folder.index - 1),
  n: goOn,
  s: save,
  "?": () => $("keys").showModal(),
};

const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

export function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const back = key === "z" && !event.shiftKey;
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    travel(back ? "undo" : "redo");
    return;
  }
  const onCanvas = document.activeElement?.tagName === "CANVAS";
  if (onCanvas && ARROWS[key]) {
    event.preventDefault();
    state.pointer = null;
    view.pan(...ARROWS[key]);
  } else if (onCanvas && key === " ") {
    event.preventDefault();
    dab();
  } else if (KEYS[key] && !event.altKey && document.activeElement?.tagName !== "SELECT") {
    KEYS[key]();
  }
}
