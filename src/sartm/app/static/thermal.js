// Thermal values as the service reads them, and the picture that a range and a colour map make of them.

import { form, requestPatiently } from "./api.js";

const STOPS = {
  grey: ["#000000", "#ffffff"],
  // Inferno of matplotlib (CC0), every 17th colour.
  inferno: ["#000004", "#0c0826", "#240c4f", "#420a68", "#5d126e", "#781c6d", "#932667", "#ae305c", "#c73e4c", "#dd513a", "#ed6925", "#f8850f", "#fca50a", "#fac62d", "#f2e661", "#fcffa4"],
  ironbow: ["#00000a", "#1e0064", "#5a0096", "#96009b", "#be1e82", "#dc4646", "#eb7319", "#f5a000", "#fccd1e", "#fff08c", "#fffff6"],
};

export const MAPS = Object.keys(STOPS);

const tables = new Map();

/** 256 colours of a map as words for image data. */
export function colourTable(name) {
  if (tables.has(name)) return tables.get(name);
  const stops = STOPS[name].map((code) => [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16)));
  const table = Uint32Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (stops.length - 1);
    const first = Math.min(Math.floor(place), stops.length - 2);
    const [red, green, blue] = stops[first].map((value, i) => Math.round(value + (stops[first + 1][i] - value) * (place - first)));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
  tables.set(name, table);
  return table;
}

/** One thermal image: its values, and a canvas that shows them. */
export class Heat {
  constructor(values, [height, width], unit) {
    Object.assign(this, { values, width, height, unit });
    this.canvas = new OffscreenCanvas(width, height);
    [this.least, this.most] = extremes(values);
    this.auto = values instanceof Uint8Array ? [0, 255] : percentiles(values, this.least, this.most);
  }

  /** The value at a share of width and height: pictures that differ in size show the same view. */
  at(u, v) {
    const x = Math.min(this.width - 1, Math.max(0, Math.floor(u * this.width)));
    const y = Math.min(this.height - 1, Math.max(0, Math.floor(v * this.height)));
    return this.values[y * this.width + x];
  }

  format(value) {
    if (this.unit === "celsius") return `${value.toFixed(1)} °C`;
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  }

  /** Whether a range shows anything of this image. */
  meets([low, high]) {
    return high > this.least && low < this.most;
  }

  /** Draw the values from `low` to `high` in the colours of a map. */
  paint([low, high], map) {
    const context = this.canvas.getContext("2d");
    const picture = context.createImageData(this.width, this.height);
    const words = new Uint32Array(picture.data.buffer);
    const table = colourTable(map);
    const { values } = this;
    const scale = 256 / Math.max(high - low, 1e-9);
    const level = (value) => Math.min(255, Math.max(0, Math.floor((value - low) * scale)));
    if (values.BYTES_PER_ELEMENT < 4) {
      const colours = Uint32Array.from({ length: 2 ** (8 * values.BYTES_PER_ELEMENT) }, (_, value) => table[level(value)]);
      for (let i = 0; i < values.length; i++) words[i] = colours[values[i]];
    } else {
      for (let i = 0; i < values.length; i++) words[i] = table[level(values[i])];
    }
    context.putImageData(picture, 0, 0);
  }
}

function extremes(values) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

/** The 0.5th and 99.5th percent, of a sample where there are many. */
function percentiles(values, least, most) {
  const step = Math.max(1, Math.floor(values.length / 100_000));
  const sample = values.filter((_, i) => i % step === 0).sort();
  const low = sample[Math.floor(0.005 * (sample.length - 1))];
  const high = sample[Math.ceil(0.995 * (sample.length - 1))];
  return high > low ? [low, high] : [least, most > least ? most : least + 1];
}

/** The values of a file; `view` is thermal, or fourth (channel of an RGB file). */
export async function readHeat(file, view) {
  const answer = await requestPatiently("/v1/values", form({ image: file, view }));
  const { values, size } = parseArray(await answer.arrayBuffer());
  return new Heat(values, size, answer.headers.get("x-thermal-unit") ?? "raw");
}

const KINDS = { "|u1": Uint8Array, "<u2": Uint16Array, "<f4": Float32Array };

/** A NumPy file of two dimensions as {values, size}. */
export function parseArray(buffer) {
  const view = new DataView(buffer);
  const wide = view.getUint8(6) > 1; // version 1 has two bytes of length
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, start, length));
  const [, kind] = /'descr': '([^']+)'/.exec(header);
  const [, height, width] = /'shape': \((\d+), (\d+)\)/.exec(header);
  return { values: new KINDS[kind](buffer.slice(start + length)), size: [Number(height), Number(width)] };
}
