// Many files to pairs: by the words for RGB and thermal in folders and names, and by what is left of them.

import { kindByName, looksThermal } from "./pictures.js";

const FILMS = /\.(mp4|m4v|mov|webm|mkv|avi|ogv|mpg|mpeg|ts|wmv)$/i;
const PICTURES = /\.(png|jpe?g|tiff?|bmp|webp|ppm|pgm|npy)$/i;
const LABELS = /^(labels?|masks?|annotations?|gt|ground[-_]?truth|seg(mentation)?s?|overlays?|boxes)$/i;
const WORDS = /^(rgb|visible|visual|vis|vi|color|colour|co|eo|images?|thermal|thermals|infrared|ir|tir|lwir|ther|th|t|radiometric|preview|previewdata)$/i;

export const isFilm = (file) => FILMS.test(file.name) || file.type.startsWith("video/");

/** Files that are pictures: no hidden ones, no label maps. */
export function keepPictures(files) {
  return files.filter((file) => {
    const folders = pathOf(file).split("/").slice(0, -1);
    const hidden = file.name.startsWith(".") || folders.some((part) => part.startsWith("."));
    const label = folders.some((part) => LABELS.test(part)) || /[_-](labels?|mask|gt)\.\w+$/i.test(file.name);
    return !hidden && !label && (PICTURES.test(file.name) || file.type.startsWith("image/"));
  });
}

/** The path below what was chosen; `place` is set where a folder was dropped. */
export function pathOf(file) {
  return file.place ?? (file.webkitRelativePath || file.name);
}

/** What is left of a path without suffix and without the words for a kind. */
function keyOf(path) {
  const parts = path.replace(/\.[^./]*$/, "").split("/");
  const name = parts.pop();
  const folders = parts.filter((part) => !WORDS.test(part)).map(strip);
  return [...folders, strip(name) || name].join("/");
}

/** A name without the words for a kind, the rest as it is written. */
function strip(name) {
  const parts = name.replace(/([a-z\d])(RGB|IR|TIR)$/, "$1_$2").split(/([_\-. ]+)/);
  let rest = "";
  for (let i = 0; i < parts.length; i += 2) {
    if (!WORDS.test(parts[i])) rest += rest ? parts[i - 1] + parts[i] : parts[i];
  }
  return rest;
}

/** The kind that a path says: the name decides, then the nearest folder. */
function kindOf(path) {
  for (const part of path.replace(/\.[^./]*$/, "").split("/").reverse()) {
    const kind = kindByName(part);
    if (kind) return kind;
  }
  return "";
}

/**
 * Pairs of {name, rgb, thermal}, sorted by name, and how many files had no partner.
 * Those are taken alone; a kind that no name says is seen in the picture.
 */
export async function pairFiles(files) {
  const groups = new Map();
  for (const file of files) {
    const path = pathOf(file);
    const key = keyOf(path).toLowerCase();
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push({ file, kind: kindOf(path), path });
  }
  if (groups.size === files.length && files.length === 2) return pairTwo(files);
  const pairs = [];
  for (const members of groups.values()) pairs.push(...(await pairGroup(members)));
  const lone = pairs.filter(({ rgb, thermal }) => !rgb || !thermal).length;
  const order = new Intl.Collator("en", { numeric: true });
  pairs.sort((a, b) => order.compare(a.name, b.name));
  return { pairs: nameApart(pairs), lone };
}

/** Two single files are a pair whatever they are called. */
async function pairTwo(files) {
  const thermal = await Promise.all(files.map(looksThermal));
  const [rgb, other] = thermal[0] && !thermal[1] ? [files[1], files[0]] : files;
  return { pairs: [{ name: nameOf(pathOf(rgb)), rgb, thermal: other }], lone: 0 };
}

async function pairGroup(members) {
  for (const member of members) {
    if (!member.kind) member.kind = await guess(member, members);
  }
  const of = (kind) => members.filter((member) => member.kind === kind);
  const [visible, infrared] = [of("rgb"), of("thermal")];
  if (visible.length === 1 && infrared.length === 1) {
    return [{ name: nameOf(visible[0].path), rgb: visible[0].file, thermal: infrared[0].file }];
  }
  return members.map(({ file, kind, path }) => ({ name: nameOf(path), rgb: null, thermal: null, [kind]: file }));
}

/** Of two, the one whose name says nothing is what the other is not (FLIR_1.jpg beside FLIR_1_RGB.jpg). */
async function guess(member, members) {
  const other = members.length === 2 && members.find((each) => each !== member).kind;
  if (other) return other === "rgb" ? "thermal" : "rgb";
  return (await looksThermal(member.file)) ? "thermal" : "rgb";
}

function nameOf(path) {
  const bare = path.replace(/\.[^./]*$/, "");
  return keyOf(path) || bare;
}

/** Names become files: no two of them alike, whatever the case of their letters. */
function nameApart(pairs) {
  const seen = new Set();
  for (const pair of pairs) {
    const plain = fileName(pair.name);
    let name = plain;
    for (let number = 2; seen.has(keyOfFile(name)); number++) name = `${plain}_${number}`;
    seen.add(keyOfFile(name));
    pair.name = name;
  }
  return pairs;
}

/** The same of two names that a disk may take for one. */
const keyOfFile = (name) => name.normalize().toLowerCase();

/** A name as path in an archive: nothing that leads elsewhere, or that a disk refuses. */
function fileName(name) {
  return name.split("/").map((part) => part.replace(/[\p{Cc}<>:"|?*\\]+/gu, "_").replace(/^\.+/, "_")).join("/");
}

/** All files of a drop, those in folders too, each with its path as `place`. */
export async function filesOfDrop(data) {
  const entries = [...(data?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...(data?.files ?? [])];
  const found = [];
  for (const entry of entries) await collect(entry, "", found);
  return found;
}

async function collect(entry, folder, found) {
  const place = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push(Object.assign(file, { place }));
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const each of some) await collect(each, `${place}/`, found);
  }
}
