// What can be saved from the page: label map, overlay, JSON.

import { encodeMasks, encodePng } from "./codec.js";
import { $, make, onClick } from "./dom.js";

export function wireDownloads(state) {
  state.on("results", () => ($("saves").hidden = !state.current));
  onClick("get-labels", async () => download(await labelBlob(state), `${stem(state)}_labels.png`));
  onClick("get-overlay", async () => download(await overlayBlob(state), `${stem(state)}_overlay.png`));
  onClick("get-json", async () => download(await jsonBlob(state), `${stem(state)}_segments.json`));
}

export function stem({ inputs }) {
  const { name } = inputs.rgb ?? inputs.thermal;
  return name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "picture";
}

export function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function labelBlob(state) {
  await state.finish();
  const { current, pair } = state;
  current.unsaved &&= Boolean(pair); // a folder's labels belong into the folder
  if (current.png && !current.edited) return new Blob([current.png], { type: "image/png" });
  return encodePng(current.map.labels, current.map.size, current.palette);
}

async function overlayBlob(state) {
  await state.finish();
  const { current } = state;
  const [height, width] = current.map.size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(state.pictureBelow(current), 0, 0, width, height);
  current.colours.drawOn(context, $("opacity").value / 100);
  return canvas.convertToBlob({ type: "image/png" });
}

async function jsonBlob(state) {
  await state.finish();
  const result = state.current;
  const { map } = result;
  const { confidence, objects, trust, ...json } = result.json;
  // What the model said of its own map holds of no corrected one.
  const said = result.edited ? {} : { confidence, trust, objects: objects && result.objects };
  const segments = [...encodeMasks(map.labels, map.size)].map(([id, { counts, pixels }]) => {
    const { name, stored: colour, colour: display } = result.classOf(id);
    const share = Number((pixels / map.labels.length).toFixed(6));
    return { id, name, colour, display, pixels, share, segmentation: { size: map.size, counts } };
  });
  const { classes } = result.table; // a folder has its own
  const content = { ...json, ...said, classes, corrected: result.edited, segments };
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}
