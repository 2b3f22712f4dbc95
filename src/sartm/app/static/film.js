// Films: their pictures as pairs of a batch, and the labelled pictures as a film again.

import { Refusal } from "./api.js";
import { createItem } from "./batch.js";
import { say } from "./notices.js";
import { kindByName, look } from "./pictures.js";
import { writeWebm } from "./webm.js";

const MOST = 3000; // pictures of one film
const KEY = 2; // seconds between pictures that stand alone

/** {rgb, thermal} players of one or two files, and how long both last. */
export async function openFilm(files) {
  if (files.length > 2) throw new Refusal(422, `These are ${files.length} films. Choose one, or two of the same scene: RGB and thermal.`);
  const players = await Promise.all(files.map(openPlayer));
  const kinds = await Promise.all(players.map((player, index) => kindOf(player, files[index])));
  const film = { rgb: null, thermal: null, title: files[0].name.replace(/\.[^.]*$/, "") };
  if (players.length === 1) film[kinds[0]] = players[0];
  else {
    const exchanged = kinds[0] === "thermal" && kinds[1] !== "thermal";
    [film.rgb, film.thermal] = exchanged ? [players[1], players[0]] : players;
  }
  film.duration = Math.min(...players.map((player) => player.duration));
  film.close = () => players.forEach((player) => (URL.revokeObjectURL(player.src), player.removeAttribute("src")));
  let turn = Promise.resolve(); // one asks at a time: a player is at one moment only
  film.take = (time, name) => {
    const result = turn.then(() => takePictures(film, time, name));
    turn = result.catch(() => undefined);
    return result;
  };
  return film;
}

/** The pictures of a film, `rate` to the second, as pairs. */
export function filmItems(film, rate) {
  const all = Math.max(1, Math.floor(film.duration * rate + 1e-3));
  const count = Math.min(MOST, all);
  if (all > MOST) say(`Only the first ${MOST} of ${all} pictures are taken, ${clock(MOST / rate)} of ${clock(film.duration)}; with fewer pictures per second more of the film is.`);
  return Array.from({ length: count }, (_, index) => {
    const name = String(index).padStart(6, "0");
    return createItem(name, () => film.take(index / rate, name), index / rate);
  });
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;

async function openPlayer(file) {
  const player = document.createElement("video");
  Object.assign(player, { muted: true, preload: "auto", src: URL.createObjectURL(file) });
  await new Promise((resolve, reject) => {
    player.addEventListener("loadeddata", resolve, { once: true });
    player.addEventListener("error", () => reject(new Refusal(415, `This browser cannot play ${file.name}. Convert it to MP4 (H.264) or WebM; thermal of 16 bits: sartm video.`)), { once: true });
  });
  if (!Number.isFinite(player.duration)) await seek(player, 1e9); // a recording that does not say how long it is
  return player;
}

async function kindOf(player, file) {
  const named = kindByName(file.name);
  if (named) return named;
  return (await look(await picture(player, 0, "first"))) === "grey" ? "thermal" : "rgb";
}

async function takePictures(film, time, name) {
  const files = { rgb: null, thermal: null };
  for (const kind of ["rgb", "thermal"]) if (film[kind]) files[kind] = await picture(film[kind], time, `${name}.png`);
  return files;
}

async function picture(player, time, name) {
  await seek(player, Math.min(time + 1e-3, player.duration)); // a moment later: times are rounded
  const canvas = new OffscreenCanvas(player.videoWidth, player.videoHeight);
  canvas.getContext("2d").drawImage(player, 0, 0);
  return new File([await canvas.convertToBlob({ type: "image/png" })], name, { type: "image/png" });
}

function seek(player, time) {
  if (player.readyState >= 2 && Math.abs(player.currentTime - time) < 1e-6) return undefined;
  return new Promise((resolve) => {
    player.addEventListener("seeked", resolve, { once: true });
    player.currentTime = time;
  });
}

const CODECS = [["vp8", "V_VP8"], ["vp09.00.40.08", "V_VP9"]];

/** Whether this browser, at this address, can write films. */
export const canWrite = () => typeof VideoEncoder === "function";

/** The labelled pictures of a batch as WebM. */
export async function encodeFilm(items, rate, progress) {
  const first = await createImageBitmap(items[0].frame);
  const { width, height } = first;
  const settings = { width, height, bitrate: Math.max(1_000_000, 4 * width * height), framerate: rate };
  let chosen = null;
  for (const [codec, name] of CODECS) {
    const { supported } = await VideoEncoder.isConfigSupported({ ...settings, codec });
    if (supported) chosen ??= { codec, name };
  }
  if (!chosen) throw new Refusal(501, "This browser has no encoder for films; save the ZIP.");
  const chunks = [];
  let failure = null;
  const encoder = new VideoEncoder({
    output: (chunk) => {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      chunks.push({ data, time: Math.round(chunk.timestamp / 1000), key: chunk.type === "key" });
    },
    error: (error) => (failure = error),
  });
  encoder.configure({ ...settings, codec: chosen.codec });
  for (const [index, item] of items.entries()) {
    const bitmap = await createImageBitmap(item.frame);
    const moment = new VideoFrame(bitmap, { timestamp: Math.round(item.time * 1e6) });
    encoder.encode(moment, { keyFrame: index % Math.max(1, Math.round(KEY * rate)) === 0 });
    moment.close();
    progress(index + 1);
    while (encoder.encodeQueueSize > 4 && !failure) await new Promise((resolve) => setTimeout(resolve, 5));
    if (failure) throw failure;
  }
  await encoder.flush();
  encoder.close();
  const duration = 1000 * (items.at(-1).time + 1 / rate);
  return writeWebm({ codec: chosen.name, width, height, duration }, chunks);
}
