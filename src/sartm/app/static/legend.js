// The list of classes with their shares.

import { setPaint } from "./correction.js";
import { $ } from "./dom.js";
import { coloursOf, percent, readable } from "./result.js";
import { panes } from "./stage.js";
import { MODES, current, modes, state } from "./state.js";

export function drawLegend() {
  const result = current();
  if (!result) return;
  const shown = modes().map((mode) => state.results.get(mode));
  const total = (one) => one.map.labels.length;
  const share = (one, id) => (one ? (one.counts.get(id) ?? 0) / total(one) : 0);
  const rows = coloursOf(result.table).map((one) => ({ ...one, shares: shown.map((each) => share(each, one.id)) }));
  const listed = state.editing ? rows : rows.filter((row) => row.shares.some((value) => value > 0));
  if (!state.editing) listed.sort((a, b) => Number(a.rest) - Number(b.rest) || b.shares[0] - a.shares[0]);
  const chosen = state.editing ? state.paint : state.only;
  const focused = document.activeElement?.closest?.("#legend button")?.dataset.id;
  $("legend").replaceChildren(...listed.map((row) => legendRow(row, chosen === row.id)));
  if (focused) $("legend").querySelector(`[data-id="${focused}"]`)?.focus();
  $("heads").hidden = shown.length === 1;
  $("heads").replaceChildren(...modes().map((mode) => Object.assign(document.createElement("span"), { textContent: MODES[mode].split(" ")[0] })));
}

function legendRow(row, pressed) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.id = row.id;
  button.setAttribute("aria-pressed", String(pressed));
  button.title = state.editing ? "Paint with this class" : "Show this class alone";
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.background = `rgb(${row.colour})`;
  const name = Object.assign(document.createElement("span"), { className: "label", textContent: readable(row.name) });
  const shares = Object.assign(document.createElement("span"), { className: "shares" });
  for (const value of row.shares) {
    shares.append(Object.assign(document.createElement("span"), { textContent: value ? percent(value) : "–" }));
  }
  const meter = Object.assign(document.createElement("span"), { className: "meter" });
  const filled = document.createElement("i");
  filled.style.width = `${100 * Math.max(...row.shares)}%`;
  filled.style.background = `rgb(${row.colour.map((c) => Math.round(c + (255 - c) * 0.25))})`;
  filled.hidden = !row.shares.some((value) => value > 0);
  meter.append(filled);
  button.append(swatch, name, shares, meter);
  button.addEventListener("click", () => (state.editing ? setPaint(row.id) : setOnly(row.id)));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

export function setOnly(id) {
  state.only = state.only === id ? null : id;
  for (const result of state.results.values()) result.colours.paint(coloursOf(result.table), state.only);
  for (const pane of panes) pane.draw();
  drawLegend();
}
