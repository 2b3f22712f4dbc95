// The card of a result: its classes with their shares, and the service's note.

import { numbered, setPaint } from "./correction.js";
import { $, make, makeSwatch } from "./dom.js";
import { labelAgain } from "./list.js";
import { percent, readable } from "./result.js";
import { MODES } from "./state.js";
import { inPageWords } from "./words.js";

export function wireLegend(state) {
  state.on("results", () => drawNote(state));
  state.on("results edits choice", () => drawLegend(state));
}

function drawNote(state) {
  const { current } = state;
  const note = current?.json.note ?? "";
  $("result").hidden = !current;
  $("note").hidden = !note;
  if (!note) return;
  $("note-words").textContent = inPageWords(note);
  const other = /4th channel/.test(note) ? (/dropped/.test(note) ? "yes" : "no") : null;
  $("note-act").hidden = !other;
  $("note-act").textContent = other === "yes" ? "It is thermal" : "It is transparency";
  $("note-act").onclick = () => labelAgain(state, () => (state.fourChannel = other));
}

function drawLegend(state) {
  const { current, editing, shownModes } = state;
  if (!current) return;
  const shown = shownModes.map((mode) => state.results.get(mode));
  const rows = current.classes.map((entry) => ({ ...entry, shares: shown.map((result) => result?.share(entry.id) ?? 0) }));
  const listed = editing ? rows : rows.filter((row) => row.shares.some((value) => value > 0));
  if (!editing) listed.sort((a, b) => Number(a.rest) - Number(b.rest) || b.shares[0] - a.shares[0]);
  const focused = document.activeElement?.closest?.("#legend button")?.dataset.id;
  $("legend").replaceChildren(...listed.map((row) => make("li", {}, legendRow(state, row))));
  if (focused) $("legend").querySelector(`[data-id="${focused}"]`)?.focus();
  $("heads").hidden = !state.comparing;
  $("heads").replaceChildren(...shownModes.map((mode) => make("span", { textContent: MODES[mode].split(" ")[0] })));
}

function legendRow(state, { id, name, colour, shares }) {
  const digit = state.editing ? numbered(state.current).findIndex((entry) => entry.id === id) + 1 : 0;
  const filled = make("i", { hidden: !shares.some((value) => value > 0) });
  filled.style.width = `${100 * Math.max(...shares)}%`;
  filled.style.background = `rgb(${colour})`;
  const button = make(
    "button",
    { type: "button", title: state.editing ? "Paint with this class" : "Show this class alone" },
    makeSwatch(colour),
    make("span", { className: "label" }, ...(digit ? [make("kbd", { textContent: digit })] : []), readable(name)),
    make("span", { className: "shares" }, ...shares.map((value) => make("span", { textContent: value ? percent(value) : "–" }))),
    make("span", { className: "meter" }, filled),
  );
  button.dataset.id = id;
  const chosen = state.editing ? state.paint : state.highlighted;
  button.setAttribute("aria-pressed", String(chosen === id));
  button.addEventListener("click", () => (state.editing ? setPaint(state, id) : state.toggleHighlight(id)));
  return button;
}
