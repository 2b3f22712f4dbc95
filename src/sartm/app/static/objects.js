// The objects of a label map: a card of the one under the pointer, a table that can be sorted, CSV.

import { $, make, makeSwatch, onClick } from "./dom.js";
import { download, stem } from "./downloads.js";
import { labelAgain } from "./list.js";
import { objectsCsv, percent, readable } from "./result.js";

const MOST = 200; // rows on the page; the CSV has all
const TITLES = { class: "Class", area: "Pixels", confidence: "Sure", celsius_mean: "Mean °C", celsius_max: "Max °C" };
export function wireObjects(state, stage) {
  const order = { by: "area", down: true };
  state.on("results edits", () => drawTable(state, stage, order));
  state.on("results edits pointer", () => drawCard(state));
  onClick("get-objects", () => download(csvBlob(state), `${stem(state)}_objects.csv`));
  $("degrees").addEventListener("change", () => labelAgain(state, () => (state.degrees = $("degrees").value)));
}

const objectsOf = ({ current }) => current?.objects ?? [];

const degrees = (value) => (value === undefined ? "–" : `${value.toFixed(1)} °C`);

function drawCard(state) {
  const found = state.pointer && !state.editing && !state.comparing ? state.current?.objectAt(state.pointer) : null;
  $("object").hidden = !found;
  if (!found) return;
  const lines = [["Area", `${found.area} pixels, ${found.width} × ${found.height}`], ["Sure", `${percent(found.confidence)}, at least ${percent(found.lowest_confidence)}`]];
  if (found.celsius_mean !== undefined) {
    lines.push(["Mean", `${degrees(found.celsius_mean)} ± ${found.celsius_error.toFixed(1)}`]);
    lines.push(["Range", `${degrees(found.celsius_min)} to ${degrees(found.celsius_max)}`]);
    if (found.contrast !== undefined) lines.push(["Around it", `${found.contrast > 0 ? "+" : ""}${found.contrast.toFixed(1)} K`]);
  }
  if (found.located) lines.push([found.located === "camera" ? "Camera at" : "Place", `${found.latitude.toFixed(6)}, ${found.longitude.toFixed(6)}`]);
  if (found.taken) lines.push(["Taken", found.taken.replace("T", " ")]);
  const words = lines.flatMap(([title, text]) => [make("dt", { textContent: title }), make("dd", { textContent: text })]);
  $("object").replaceChildren(make("b", { textContent: `${readable(found.class)} ${found.id}` }), make("dl", {}, ...words));
}

function drawTable(state, stage, order) {
  const objects = objectsOf(state);
  $("objects").hidden = $("get-objects").hidden = !objects.length || state.comparing;
  if ($("objects").hidden) return;
  const warm = objects.some((row) => row.celsius_mean !== undefined);
  $("degrees-row").hidden = !state.inputs.thermal || state.inputs.thermal.heat?.unit === "celsius";
  $("degrees").value = state.degrees;
  const columns = Object.keys(TITLES).filter((name) => warm || !name.startsWith("celsius"));
  if (!columns.includes(order.by)) order.by = "area";
  const sorted = objects.toSorted((a, b) => compare(a[order.by], b[order.by]) * (order.down ? -1 : 1));
  const draw = () => drawTable(state, stage, order);
  $("objects-count").textContent = objects.length;
  $("objects-head").replaceChildren(...columns.map((name) => headCell(name, order, draw)));
  $("objects-rows").replaceChildren(...sorted.slice(0, MOST).map((row) => tableRow(state, stage, columns, row)));
  $("objects-more").hidden = objects.length <= MOST;
  $("objects-more").textContent = `and ${objects.length - MOST} more; the CSV has all`;
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  return (a ?? -Infinity) - (b ?? -Infinity);
}

function headCell(name, order, draw) {
  const chosen = order.by === name;
  const button = make("button", { type: "button", textContent: TITLES[name] });
  const cell = make("th", { scope: "col" }, button);
  cell.ariaSort = chosen ? (order.down ? "descending" : "ascending") : "none";
  button.addEventListener("click", () => {
    Object.assign(order, { by: name, down: chosen ? !order.down : name !== "class" });
    draw();
    [...$("objects-head").querySelectorAll("button")].find((other) => other.textContent === TITLES[name])?.focus();
  });
  return cell;
}

function tableRow(state, stage, columns, row) {
  const { colour } = state.current.classes.find(({ name }) => name === row.class);
  const button = make("button", { type: "button", title: "Show it in the picture" }, makeSwatch(colour), `${readable(row.class)} ${row.id}`);
  button.addEventListener("click", () => stage.show({ x: row.x, y: row.y }, Math.hypot(row.width, row.height) / 2 + 3));
  const texts = { area: row.area, confidence: percent(row.confidence) };
  const cells = columns.map((name) => (name === "class" ? make("td", {}, button) : make("td", { textContent: texts[name] ?? row[name]?.toFixed(1) ?? "–" })));
  return make("tr", {}, ...cells);
}

const csvBlob = (state) => new Blob([objectsCsv([[stem(state), objectsOf(state)]])], { type: "text/csv" });
