// How pictures are lit: level, window and colours of thermal values, brightness of RGB, the scale beside them.

import { $, onClick } from "./dom.js";
import { labelAgain } from "./list.js";
import { colourTable, MAPS } from "./thermal.js";

const SPAN = 300; // pixels of a drag that move the window by its whole range

export function wireHeat(state) {
  state.map = MAPS.includes(localStorage.getItem("map")) ? localStorage.getItem("map") : "grey";
  $("map").value = state.map;
  state.on("inputs", () => paintThermal(state));
  state.on("light", () => state.changed("results"));
  state.on("results", () => drawHeat(state));
  $("map").addEventListener("change", () => setMap(state, $("map").value));
  onClick("window", () => toggleWindowing(state));
  onClick("window-auto", () => setWindow(state, null));
  onClick("window-use", () => useWindow(state));
  for (const id of ["low", "high"]) $(id).addEventListener("change", () => typeWindow(state));
  $("brightness").addEventListener("input", () => {
    state.brightness = $("brightness").value / 100;
    state.changed("light");
  });
}

export function nextMap(state) {
  if (state.inputs.thermal?.heat) setMap(state, MAPS[(MAPS.indexOf(state.map) + 1) % MAPS.length]);
}

function setMap(state, map) {
  state.map = $("map").value = map;
  localStorage.setItem("map", map);
  paintThermal(state);
  state.changed("light");
}

export function toggleWindowing(state) {
  if (!state.inputs.thermal?.heat) return;
  state.windowing = !state.windowing;
  if (state.windowing && !state.comparing) state.base = "thermal";
  state.changed("results");
}

/** The range of values that is shown of the thermal picture. */
function shownWindow(state) {
  const { heat } = state.inputs.thermal;
  return state.window && heat.meets(state.window) ? state.window : heat.auto;
}

function paintThermal(state) {
  const { thermal } = state.inputs;
  if (thermal?.heat) thermal.heat.paint(shownWindow(state), state.map);
  else state.windowing = false;
}

function setWindow(state, window) {
  state.window = window;
  paintThermal(state);
  state.changed("light");
}

/** Level and window by a drag: to the right it widens, upwards the level rises. */
export function dragWindow(state, dx, dy) {
  const { heat } = state.inputs.thermal;
  const [low, high] = shownWindow(state);
  const range = heat.auto[1] - heat.auto[0];
  const width = Math.max(range / 500, high - low + (dx * range) / SPAN);
  const level = Math.min(heat.most, Math.max(heat.least, (low + high) / 2 - (dy * range) / SPAN));
  setWindow(state, [level - width / 2, level + width / 2]);
}

function typeWindow(state) {
  const [low, high] = [$("low"), $("high")].map((input) => Number.parseFloat(input.value));
  if (Number.isFinite(low) && Number.isFinite(high) && low < high) setWindow(state, [low, high]);
  else drawHeat(state);
}

/** Let the model see the thermal values in the range that is shown, or as before where there is none. */
function useWindow(state) {
  const range = rangeOf(state);
  if (range !== state.range) labelAgain(state, () => (state.range = range));
}

const short = (value) => Number(value.toPrecision(6));
const rangeOf = ({ window }) => (window ? window.map(short).join(":") : "");

function drawHeat(state) {
  const { base, comparing, inputs } = state;
  const heat = inputs.thermal?.heat;
  const thermal = Boolean(heat) && (base === "thermal" || (comparing && base !== "confidence"));
  $("heat").hidden = !thermal;
  $("light").hidden = !inputs.rgb || base !== "rgb";
  if (state.windowing && !thermal) state.windowing = false;
  document.body.classList.toggle("windowing", state.windowing);
  $("window").setAttribute("aria-pressed", String(state.windowing));
  drawScale(state);
  if (!thermal) return;
  const shown = shownWindow(state);
  $("low").value = short(shown[0]);
  $("high").value = short(shown[1]);
  $("unit").textContent = heat.unit === "celsius" ? "°C" : "";
  $("window-auto").disabled = !state.window;
  const differs = rangeOf(state) !== state.range;
  $("window-use").hidden = !differs;
  $("window-use").textContent = state.window ? "Label with this range" : "Label as before";
}

/** The bar that says what a shade stands for. */
function drawScale({ base, comparing, current, inputs, map, window }) {
  const heat = base === "thermal" && !comparing ? inputs.thermal?.heat : null;
  const sure = base === "confidence" && Boolean(current?.bitmap);
  $("bar").hidden = !heat && !sure;
  if (!heat && !sure) return;
  const shown = heat && (window && heat.meets(window) ? window : heat.auto);
  const ends = heat ? [shown[0], (shown[0] + shown[1]) / 2, shown[1]].map((value) => heat.format(short(value))) : ["0 %", "50 %", "100 %"];
  const [canvas, ...words] = $("bar").children;
  words.forEach((word, index) => (word.textContent = ends[index]));
  $("bar").setAttribute("aria-label", `${heat ? "Thermal values" : "Confidence"}, dark to bright: ${ends[0]} to ${ends[2]}`);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(256, 1);
  new Uint32Array(picture.data.buffer).set(colourTable(heat ? map : "grey"));
  context.putImageData(picture, 0, 0);
}
