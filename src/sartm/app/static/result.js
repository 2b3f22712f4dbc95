// A label map of the service: its classes, colours and shares, what lies at a point, its changes.

import { fromBase64, paintMask } from "./codec.js";
import { History } from "./editor.js";
import { pixelsOf } from "./pictures.js";
import { Colours } from "./viewer.js";

const IGNORE_COLOUR = [255, 255, 255];

export class Result {
  bitmap = null; // the confidence as picture
  confidence = null; // 0-255 per pixel
  numbers = null; // RGBA per pixel, of which object it is: R + 256 G + 65536 B
  png = null; // the label map as the service sent it
  edited = false;
  restored = false; // it was corrected before this history begins
  unsaved = false;
  saving = false; // it is on its way into the folder
  history = new History();

  /** `json` has size and segments; `table` is {classes, ignore}. */
  constructor(json, table, highlighted) {
    this.json = json;
    this.table = table;
    const ignore = { id: table.ignore, name: "ignore", colour: IGNORE_COLOUR, display: IGNORE_COLOUR, rest: false };
    // What is shown is easy to tell apart, also in the dark; `stored` is the colour in files.
    this.classes = [...table.classes, ignore].map((entry) => ({ ...entry, colour: entry.display, stored: entry.colour }));
    const [height, width] = json.size;
    const wide = table.ignore > 255 || table.classes.length > 256;
    this.map = { size: json.size, labels: new (wide ? Uint16Array : Uint8Array)(width * height) };
    this.renamed = this.#paintSegments();
    this.colours = new Colours(this.map);
    this.paint(highlighted);
    this.count();
  }

  /** Class ids go by name, because a folder's table need not be the model's; whether any differed. */
  #paintSegments() {
    const { classes, ignore } = this.table;
    let renamed = false;
    for (const { id, name, segmentation } of this.json.segments) {
      const same = classes[id]?.name === name || id === ignore;
      const named = classes.find((entry) => entry.name === name)?.id ?? this.restId;
      renamed ||= !same;
      paintMask(this.map.labels, this.map.size, segmentation.counts, same ? id : named);
    }
    return renamed;
  }

  /** What is left where a class is taken away. */
  get restId() {
    return this.table.classes.find((entry) => entry.rest)?.id ?? this.table.ignore;
  }

  classOf(id) {
    return this.classes.find((entry) => entry.id === id) ?? { name: `id ${id}`, colour: [0, 0, 0], stored: [0, 0, 0] };
  }

  paint(highlighted, where = null) {
    this.colours.paint(this.classes, highlighted, where);
  }

  count() {
    const pixels = new Uint32Array(65536);
    for (const id of this.map.labels) pixels[id]++;
    this.counts = new Map(this.classes.filter(({ id }) => pixels[id]).map(({ id }) => [id, pixels[id]]));
  }

  /** Take over a map that was corrected before. */
  restore(labels) {
    this.map.labels.set(labels);
    this.edited = this.restored = true;
    this.paint(null);
    this.count();
  }

  /** Colours of label maps in files, by id. */
  get palette() {
    return new Map(this.classes.map(({ id, stored }) => [id, stored]));
  }

  share(id) {
    return (this.counts.get(id) ?? 0) / this.map.labels.length;
  }

  /** What is at a point of the picture; null outside. */
  at(point) {
    const [height, width] = this.map.size;
    const x = Math.floor(point.x);
    const y = Math.floor(point.y);
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const { name, colour } = this.classOf(this.map.labels[y * width + x]);
    const sure = this.confidence && !this.edited ? percent(this.confidence[y * width + x] / 255) : "";
    return { x, y, name: readable(name), colour, sure };
  }

  /** What the map shows, part by part; of a corrected one nobody knows it. */
  get objects() {
    return this.edited ? [] : (this.json.objects ?? []).filter((found) => this.#knows(found));
  }

  /** Whether a folder's table has the class of an object that a model found. */
  #knows(found) {
    return this.table.classes.some(({ name }) => name === found.class);
  }

  /** The object at a point of the picture; null where there is none, or the map was corrected. */
  objectAt(point) {
    const [height, width] = this.map.size;
    const [x, y] = [Math.floor(point.x), Math.floor(point.y)];
    if (x < 0 || y < 0 || x >= width || y >= height || !this.numbers || this.edited) return null;
    const [red, green, blue] = this.numbers.subarray(4 * (y * width + x));
    const found = this.json.objects?.[red + 256 * green + 65536 * blue - 1];
    return found && this.#knows(found) ? found : null;
  }
}

/** The maps of an answer as bytes, which take a fifth less than their text. */
export function unpack({ label_png, confidence_png, objects_png, ...json }) {
  const [sure, parts] = [confidence_png, objects_png].map((text) => new Blob([fromBase64(text)], { type: "image/png" }));
  return { json, png: fromBase64(label_png), sure, parts };
}

/** An unpacked answer of the service as a result that can be drawn and corrected. */
export async function readResult(state, { json, png, sure, parts }) {
  const bitmap = await createImageBitmap(sure);
  const result = new Result(json, state.tableOf(json), state.highlighted);
  const data = pixelsOf(bitmap);
  const confidence = Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
  const numbers = pixelsOf(await createImageBitmap(parts, { premultiplyAlpha: "none", colorSpaceConversion: "none" }));
  return Object.assign(result, { png: result.renamed ? null : png, bitmap, confidence, numbers });
}

const COLUMNS = [
  "id", "class", "area", "left", "top", "width", "height", "x", "y", "confidence", "lowest_confidence", "celsius_min", "celsius_p5",
  "celsius_median", "celsius_mean", "celsius_p95", "celsius_max", "hottest_x", "hottest_y", "contrast", "celsius_error",
  "latitude", "longitude", "located", "taken", "seconds",
];

/** The objects of pairs, [name, objects] each, in the columns of `sartm predict --objects`. */
export function objectsCsv(pairs) {
  const quote = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const lines = pairs.flatMap(([name, objects]) => objects.map((row) => [name, ...COLUMNS.map((column) => row[column] ?? "")].map(quote).join(",")));
  return [["pair", ...COLUMNS].join(","), ...lines, ""].join("\n");
}

export const readable = (name) => name.replaceAll("_", " ");

export function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1 %";
  const digits = value > 0 && value < 0.1 ? 1 : 0;
  return `${(100 * value).toFixed(digits)} %`;
}
