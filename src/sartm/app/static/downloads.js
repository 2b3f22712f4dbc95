// What can be saved from the page: label map, overlay, JSON.

import { encodeMasks, encodePng } from "./codec.js";
import { $ } from "./dom.js";
import { coloursOf } from "./result.js";
import { baseOf, state } from "./state.js";

export function stem() {
  const name = (state.inputs.rgb ?? state.inputs.thermal).name;
  return name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "picture";
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function labelBlob(result) {
  result.unsaved &&= Boolean(state.folder); // a folder's labels belong into the folder
  if (result.png && !result.edited) return new Blob([result.png], { type: "image/png" });
  return encodePng(result.map.labels, result.map.size);
}

export async function overlayBlob(result) {
  const [height, width] = result.map.size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(baseOf(result), 0, 0, width, height);
  result.colours.drawOn(context, $("opacity").value / 100);
  return canvas.convertToBlob({ type: "image/png" });
}

export function jsonBlob(result) {
  const { json, map, table } = result;
  const named = coloursOf(table);
  const segments = [...encodeMasks(map.labels, map.size)].map(([id, { counts, pixels }]) => {
    const { name, colour } = named.find((one) => one.id === id) ?? { name: `id ${id}`, colour: [0, 0, 0] };
    const share = Number((pixels / map.labels.length).toFixed(6));
    return { id, name, colour, pixels, share, segmentation: { size: map.size, counts } };
  });
  const content = { ...json, corrected: result.edited, segments };
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}
