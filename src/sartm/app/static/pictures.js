// Files to pictures: which kind a file is, and what of it can be shown.

import { form, request } from "./api.js";

/** The picture of a file as the service reads it; `view` is rgb, thermal, or fourth (channel). */
export async function showFile(file, view) {
  const answer = await request("/v1/display", form({ image: file, view }));
  return createImageBitmap(await answer.blob());
}

/** Inputs of the state for {rgb, thermal} files; null stays null. */
export async function showFiles(files) {
  const inputs = {};
  for (const [kind, file] of Object.entries(files)) {
    inputs[kind] = file && { file, name: file.name, bitmap: await showFile(file, kind) };
  }
  return inputs;
}

/** Whether a file is rather thermal: by its name, by being no picture for browsers, or by being grey. */
export async function looksThermal(file) {
  if (/thermal|infra|lwir|(^|[_\-. ])(ir|th|t)([_\-. ]|$)/i.test(file.name)) return true;
  if (/rgb|visible|(^|[_\-. ])(vi|vis)([_\-. ]|$)/i.test(file.name)) return false;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return true;
  const data = pixelsOf(bitmap, 48, 48);
  let colour = 0;
  for (let i = 0; i < data.length; i += 4) colour += Math.abs(data[i] - data[i + 1]) + Math.abs(data[i + 1] - data[i + 2]);
  return colour / (48 * 48) < 3;
}

/** RGBA bytes of a bitmap, row by row. */
export function pixelsOf(bitmap, width = bitmap.width, height = bitmap.height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
