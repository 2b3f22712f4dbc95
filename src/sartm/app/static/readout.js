// The line below the picture, and the captions: what is under the pointer.

import { $, make, makeSwatch } from "./dom.js";
import { percent } from "./result.js";
import { MODES } from "./state.js";

export function wireReadout(state, stage) {
  state.on("results edits pointer", () => {
    if (state.comparing) drawCaptions(state, stage.panes);
    drawSpot(state, state.pointer ?? stage.middle);
    drawWarmth(state, state.pointer ?? stage.middle);
    drawFacts(state);
  });
}

function drawCaptions(state, panes) {
  for (const pane of panes) {
    const spot = state.pointer && state.results.get(pane.mode)?.at(state.pointer);
    pane.caption.textContent = (MODES[pane.mode] ?? "Picture") + (spot ? `: ${spot.name} ${spot.sure}` : "");
  }
}

function drawSpot(state, point) {
  const line = $("spot");
  const spot = point && state.current?.at(point);
  line.ariaLive = state.pointer ? "off" : "polite"; // a mouse would make a reader talk without end
  if (spot) {
    const where = ` ${spot.sure} at ${spot.x}, ${spot.y}`;
    line.replaceChildren(makeSwatch(spot.colour), make("b", { textContent: spot.name }), where);
  } else {
    line.textContent = waitingFor(state);
  }
}

/** What the thermal image holds at a point, in degrees where the file says them. */
function drawWarmth({ inputs, pointer }, point) {
  const picture = (inputs.rgb ?? inputs.thermal)?.bitmap;
  const heat = inputs.thermal?.heat;
  const [u, v] = point && picture ? [point.x / picture.width, point.y / picture.height] : [-1, -1];
  const inside = Boolean(heat) && Math.min(u, v) >= 0 && Math.max(u, v) < 1;
  $("warmth").ariaLive = pointer ? "off" : "polite";
  $("warmth").hidden = !inside;
  if (inside) $("warmth").textContent = heat.format(heat.at(u, v));
}

function waitingFor(state) {
  if (state.item?.state === "failed") return state.item.error;
  if (state.current) return matchMedia("(pointer: coarse)").matches ? "Tap the picture to see what it is" : "Point at the picture to see what it is";
  if (state.sizesDiffer && !$("resize").checked) return "The sizes differ: see the note beside the pictures";
  return state.inputs.rgb || state.inputs.thermal ? "Labelling" : "Nothing here yet";
}

function drawFacts({ current, comparing }) {
  const facts = [];
  if (current) {
    const { size, confidence, seconds } = current.json;
    facts.push(`${size[1]} × ${size[0]}`);
    if (confidence != null && !comparing) facts.push(`mean confidence ${percent(confidence)}`);
    if (seconds) facts.push(`${seconds.toFixed(2)} s`);
    const range = current.json.thermal_range;
    if (range && range.by !== "rule") facts.push(`thermal ${Number(range.low.toPrecision(5))} to ${Number(range.high.toPrecision(5))}`);
    if (current.edited) facts.push("corrected");
  }
  $("facts").textContent = facts.join(" · ");
}
