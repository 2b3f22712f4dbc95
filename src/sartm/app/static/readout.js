// The line below the picture, and the captions: what is under the pointer.

import { $ } from "./dom.js";
import { percent, spotAt } from "./result.js";
import { middle, panes } from "./stage.js";
import { MODES, current, modes, state } from "./state.js";

export function readout() {
  const shown = modes();
  for (const pane of panes) {
    if (pane.figure.hidden || pane.caption.hidden) continue;
    const spot = spotAt(state.results.get(pane.mode), state.pointer);
    pane.caption.textContent = (MODES[pane.mode] ?? "Picture") + (spot ? `: ${spot.words}` : "");
  }
  const result = current();
  const point = state.pointer ?? middle();
  const spot = spotAt(result, point);
  const line = $("spot");
  line.ariaLive = state.pointer ? "off" : "polite"; // a mouse would make a reader talk without end
  if (spot) {
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = `rgb(${spot.colour})`;
    const name = Object.assign(document.createElement("b"), { textContent: spot.name });
    const where = ` ${spot.sure} at ${spot.x}, ${spot.y}`;
    line.replaceChildren(swatch, name, where);
  } else {
    line.textContent = waitingFor(result);
  }
  const json = result?.json;
  const facts = json && [`${json.size[1]} × ${json.size[0]}`];
  if (json?.confidence != null && shown.length === 1) facts.push(`mean confidence ${percent(json.confidence)}`);
  if (json?.seconds) facts.push(`${json.seconds.toFixed(2)} s`);
  if (result?.edited) facts.push("corrected");
  $("facts").textContent = facts ? facts.join(" · ") : "";
}

function waitingFor(result) {
  if (result) return "Point at the picture to see what it is";
  if (!$("resize-row").hidden && !$("resize").checked) return "The sizes differ: see the note beside the pictures";
  return state.inputs.rgb || state.inputs.thermal ? "Labelling" : "Nothing here yet";
}
