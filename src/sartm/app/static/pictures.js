// Files to pictures: which kind a file is, and what of it can be shown.

import { ask, form } from "./api.js";

export async function show(file, kind) {
  const answer = await ask("/v1/display", form({ image: file, view: kind }));
  return createImageBitmap(await answer.blob());
}

export async function showAll(chosen) {
  const shown = {};
  for (const [kind, file] of Object.entries(chosen)) {
    shown[kind] = file && { file, name: file.name, bitmap: await show(file, kind) };
  }
  return shown;
}

/** Whether a file is rather thermal: by its name, by being no picture for browsers, or by being grey. */
export async function looksThermal(file) {
  if (/thermal|infra|lwir|(^|[_\-. ])(ir|th|t)([_\-. ]|$)/i.test(file.name)) return true;
  if (/rgb|visible|(^|[_\-. ])(vi|vis)([_\-. ]|$)/i.test(file.name)) return false;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return true;
  const canvas = new OffscreenCanvas(48, 48);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, 48, 48);
  const { data } = context.getImageData(0, 0, 48, 48);
  let colour = 0;
  for (let i = 0; i < data.length; i += 4) colour += Math.abs(data[i] - data[i + 1]) + Math.abs(data[i + 1] - data[i + 2]);
  return colour / (48 * 48) < 3;
}
