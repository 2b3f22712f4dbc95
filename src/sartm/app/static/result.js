// A label map of the service: its classes, colours, shares, and what lies at a point.

import { fromBase64, paintMask } from "./codec.js";
import { History } from "./editor.js";
import { classTable, state } from "./state.js";
import { Colours } from "./viewer.js";

const IGNORE_COLOUR = [255, 255, 255];

/** An answer of the service as a map that can be drawn and corrected. */
export async function understand(json) {
  const png = fromBase64(json.label_png);
  const bitmap = await createImageBitmap(new Blob([fromBase64(json.confidence_png)], { type: "image/png" }));
  delete json.label_png;
  delete json.confidence_png;
  const result = createResult(json, classTable());
  Object.assign(result, { png: result.renamed ? null : png, bitmap, confidence: greyOf(bitmap) });
  return result;
}

/** Class ids go by name, because a folder's table need not be the model's. */
export function createResult(json, table) {
  const [height, width] = json.size;
  const wide = table.ignore > 255 || table.classes.length > 256;
  const map = { size: json.size, labels: new (wide ? Uint16Array : Uint8Array)(width * height) };
  const rest = table.classes.find((one) => one.rest)?.id ?? table.ignore;
  let renamed = false;
  for (const segment of json.segments) {
    const same = table.classes[segment.id]?.name === segment.name || segment.id === table.ignore;
    const named = table.classes.find((one) => one.name === segment.name)?.id ?? rest;
    const id = same ? segment.id : named;
    renamed ||= !same;
    paintMask(map.labels, map.size, segment.segmentation.counts, id);
  }
  const result = { json, map, table, renamed, edited: false, history: new History(), colours: new Colours(map) };
  result.colours.paint(coloursOf(table), state.only);
  count(result);
  return result;
}

export function coloursOf(table) {
  return [...table.classes, { id: table.ignore, name: "ignore", colour: IGNORE_COLOUR, rest: false }];
}

function greyOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return Uint8Array.from({ length: bitmap.width * bitmap.height }, (_, i) => data[4 * i]);
}

export function count(result) {
  result.counts = new Map();
  const counts = new Uint32Array(65536);
  for (const id of result.map.labels) counts[id]++;
  for (const { id } of coloursOf(result.table)) if (counts[id]) result.counts.set(id, counts[id]);
}

export function spotAt(result, point) {
  if (!result || !point) return null;
  const [height, width] = result.map.size;
  const x = Math.floor(point.x);
  const y = Math.floor(point.y);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const id = result.map.labels[y * width + x];
  const found = coloursOf(result.table).find((one) => one.id === id) ?? { name: `id ${id}`, colour: [0, 0, 0] };
  const sure = result.confidence && !result.edited ? percent(result.confidence[y * width + x] / 255) : "";
  const name = readable(found.name);
  return { x, y, name, colour: found.colour, sure, words: `${name} ${sure}` };
}

export const readable = (name) => name.replaceAll("_", " ");

export function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1 %";
  const digits = value > 0 && value < 0.1 ? 1 : 0;
  return `${(100 * value).toFixed(digits)} %`;
}
