// Files to pictures: which kind a file is, and what of it can be shown.

import { form, requestPatiently } from "./api.js";
import { readHeat } from "./thermal.js";

/** The picture of an RGB file as the service reads it. */
async function showRgb(file) {
  const answer = await requestPatiently("/v1/display", form({ image: file, view: "rgb" }));
  return createImageBitmap(await answer.blob());
}

/** An input of the state for a file: {file, name, bitmap}, of thermal also the values as `heat`. */
export async function showFile(file, kind) {
  if (kind === "rgb") return { file, name: file.name, bitmap: await showRgb(file) };
  const heat = await readHeat(file, kind);
  heat.paint(heat.auto, "grey");
  return { file, name: file.name, bitmap: heat.canvas, heat };
}

/** Inputs of the state for {rgb, thermal} files; null stays null. */
export async function showFiles(files) {
  const inputs = {};
  for (const [kind, file] of Object.entries(files)) inputs[kind] = file && (await showFile(file, kind));
  return inputs;
}

const THERMAL = /thermal|infra|lwir|tir|radiometric|(^|[_\-. ])(ir|th|ther|t)([_\-. ]|$)/i;
const VISIBLE = /rgb|visible|visual|preview|(^|[_\-. ])(vi|vis|co|color|colour|eo)([_\-. ]|$)/i;

/** What a file's name says it is: "thermal", "rgb", or "" if nothing. */
export function kindByName(name) {
  const [thermal, visible] = [THERMAL.test(name), VISIBLE.test(name)];
  if (thermal === visible) return "";
  return thermal ? "thermal" : "rgb";
}

/** Whether a file is rather thermal: by its name, by being no picture for browsers, or by being grey. */
export async function looksThermal(file) {
  const named = kindByName(file.name);
  return named ? named === "thermal" : (await look(file)) !== "coloured";
}

/** "coloured" or "grey" as a browser shows it, "unknown" where it cannot. */
export async function look(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return "unknown";
  const data = pixelsOf(bitmap, 48, 48);
  let colour = 0;
  for (let i = 0; i < data.length; i += 4) colour += Math.abs(data[i] - data[i + 1]) + Math.abs(data[i + 1] - data[i + 2]);
  return colour / (48 * 48) < 3 ? "grey" : "coloured";
}

/** Whether the one given as RGB is grey and the one given as thermal a coloured picture. */
export async function lookExchanged(rgb, thermal) {
  if (!rgb || !thermal || (await look(thermal)) !== "coloured" || (await look(rgb)) === "coloured") return false;
  return !(await isRadiometric(thermal)); // a coloured picture with degrees in it
}

/** Whether a file is a JPEG that holds FLIR's raw data. */
export async function isRadiometric(file) {
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return start[0] === 0xff && start[1] === 0xd8 && (await file.slice(0, 2 ** 18).text()).includes("FLIR\0\x01");
}

/** The RGB picture of a file by the browser where it shows the same as the service, else by the service. */
export async function showQuickly(file) {
  const start = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const jpeg = start[0] === 0xff && start[1] === 0xd8;
  const shallow = start[0] === 0x89 && start[24] === 8; // a PNG of 8 bits
  const bitmap = jpeg || shallow ? await createImageBitmap(file).catch(() => null) : null;
  return bitmap ?? showRgb(file);
}

/** RGBA bytes of a bitmap, row by row. */
export function pixelsOf(bitmap, width = bitmap.width, height = bitmap.height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
