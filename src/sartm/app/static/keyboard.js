// What keys do.

import { nextPaint, paintNumber, setSize, setTool, toggleEditing } from "./correction.js";
import { $, onClick } from "./dom.js";
import { save } from "./folder.js";
import { nextMap, toggleWindowing } from "./heat.js";
import { stepBack, stepOn } from "./list.js";

const BASES = ["rgb", "thermal", "confidence"];
const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

export function wireKeyboard(state, stage, pen) {
  const actions = keyActions(state, stage, pen);
  document.addEventListener("keydown", (event) => onKey(event, actions, state, stage, pen));
  onClick("help", actions["?"]);
}

function keyActions(state, stage, pen) {
  return {
    ...Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((number) => [number, () => onNumber(state, number)])),
    v: () => nextBase(state),
    m: () => nextMap(state),
    w: () => toggleWindowing(state),
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
    a: () => setTool(state, "click"),
    Escape: () => pen.clicks.drop(),
    q: () => nextPaint(state),
    p: () => stepBack(state),
    n: () => stepOn(state),
    s: () => save(state),
    "?": () => $("keys").showModal(),
  };
}

/** A class while correcting, else what lies below the classes. */
function onNumber(state, number) {
  if (state.editing) paintNumber(state, number);
  else if (state.bases.includes(BASES[number - 1])) state.setBase(BASES[number - 1]);
}

function nextBase(state) {
  const { base, bases } = state;
  if (bases.length) state.setBase(bases[(bases.indexOf(base) + 1) % bases.length]);
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
    if (state.editing && stage.middle) pen.dab(stage.middle, event.shiftKey);
  } else if (key === "Enter" && pen.clicks.open && !isActed(document.activeElement)) {
    event.preventDefault();
    pen.clicks.accept();
  } else if (actions[key] && !event.altKey && !(event.repeat && key === "s") && !isWriting(document.activeElement)) {
    actions[key]();
  }
}

/** Where Enter belongs to the element that has the focus. */
function isActed(element) {
  return ["A", "BUTTON", "SELECT", "SUMMARY"].includes(element?.tagName) || isWriting(element);
}

/** Where letters and digits belong to the element that has the focus. */
function isWriting(element) {
  return element?.tagName === "SELECT" || (element?.tagName === "INPUT" && ["number", "search", "password", "text"].includes(element.type));
}
