// A ZIP archive of files that are compressed already: stored, not packed again.

import { Refusal } from "./api.js";
import { crc } from "./codec.js";

const MOST = 2 ** 32 - 2 ** 20; // the plain format counts bytes in 32 bits, and files in 16
const FILES = 65535;

/** Blob of the archive; `files` are [name, Blob or Uint8Array]. */
export async function zip(files) {
  if (files.length > FILES) throw new Refusal(413, `${files.length} files are too many for one ZIP.`);
  const parts = [];
  const directory = [];
  let place = 0;
  for (const [name, content] of files) {
    const data = new Uint8Array(content instanceof Blob ? await content.arrayBuffer() : content);
    const title = new TextEncoder().encode(name);
    const head = header(title, data);
    parts.push(head, title, content);
    directory.push(entry(head, place), title);
    place += head.length + title.length + data.length;
    if (place > MOST) throw new Refusal(413, "The results exceed 4 GiB, more than a ZIP holds.");
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0);
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, length], [4, place], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** What stands before each file; bit 11: its name is UTF-8. The date is the first there is. */
function header(title, data) {
  return numbers([4, 0x04034b50], [2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc(data)], [4, data.length], [4, data.length], [2, title.length], [2, 0]);
}

/** The file's line in the directory at the end: its header once more, and where it lies. */
function entry(head, place) {
  const line = new Uint8Array(46);
  line.set(numbers([4, 0x02014b50], [2, 20]));
  line.set(head.subarray(4), 6);
  line.set(numbers([4, place]), 42);
  return line;
}

function numbers(...fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return bytes;
}
