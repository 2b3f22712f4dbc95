// Label maps to and from the forms in which they travel: COCO's run-length code and grey PNG.

/** Write `value` into `labels` (row by row) wherever the mask of `counts` is set. */
export function paintMask(labels, [height, width], counts, value) {
  const runs = [];
  let position = 0;
  let pixel = 0;
  while (position < counts.length) {
    let run = 0;
    let shift = 0;
    let digit;
    do {
      digit = counts.charCodeAt(position++) - 48;
      run += (digit & 31) * 2 ** shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) run -= 2 ** shift;
    if (runs.length > 2) run += runs[runs.length - 2];
    if (runs.length % 2) {
      for (const end = pixel + run; pixel < end; pixel++) {
        labels[(pixel % height) * width + Math.floor(pixel / height)] = value;
      }
    } else {
      pixel += run;
    }
    runs.push(run);
  }
}

/** Map from each id that occurs to {counts, pixels}: the same code as the service's. */
export function encodeMasks(labels, [height, width]) {
  const masks = new Map();
  const close = (id, start, end) => {
    if (!masks.has(id)) masks.set(id, { runs: [], end: 0, pixels: 0 });
    const mask = masks.get(id);
    mask.runs.push(start - mask.end, end - start);
    mask.pixels += end - start;
    mask.end = end;
  };
  let start = 0;
  let before = labels[0];
  const size = height * width;
  for (let pixel = 1; pixel < size; pixel++) {
    const id = labels[(pixel % height) * width + Math.floor(pixel / height)];
    if (id !== before) {
      close(before, start, pixel);
      start = pixel;
      before = id;
    }
  }
  close(before, start, size);
  const found = new Map();
  for (const id of [...masks.keys()].sort((a, b) => a - b)) {
    const { runs, end, pixels } = masks.get(id);
    if (end < size) runs.push(size - end);
    found.set(id, { counts: runs.map((run, i) => digits(i > 2 ? run - runs[i - 2] : run)).join(""), pixels });
  }
  return found;
}

function digits(number) {
  let text = "";
  for (let more = true; more; ) {
    let digit = number & 31;
    number >>= 5;
    more = digit & 16 ? number !== -1 : number !== 0;
    if (more) digit |= 32;
    text += String.fromCharCode(digit + 48);
  }
  return text;
}

/**
 * PNG of class ids as a Blob: 8 bits, or 16 where an id exceeds 255.
 * With a palette (id -> colour, else white) programs show its colours for ids of 8 bits.
 */
export async function encodePng(labels, [height, width], palette = null) {
  const wide = labels.some((id) => id > 255);
  const bytes = wide ? 2 : 1;
  const stride = width * bytes + 1; // each row begins with its filter, 0
  const raw = new Uint8Array(height * stride);
  for (let row = 0; row < height; row++) {
    const ids = labels.subarray(row * width, (row + 1) * width);
    if (!wide) raw.set(ids, row * stride + 1);
    else ids.forEach((id, x) => raw.set([id >> 8, id & 255], row * stride + 1 + 2 * x));
  }
  const packed = new Blob([raw]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8 * bytes;
  const painted = Boolean(palette) && !wide;
  if (painted) header[9] = 3;
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const colours = painted ? [chunk("PLTE", colourBytes(palette))] : [];
  const parts = [signature, chunk("IHDR", header), ...colours, chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

function colourBytes(palette) {
  const bytes = new Uint8Array(3 * 256).fill(255);
  for (const [id, colour] of palette) bytes.set(colour, 3 * id);
  return bytes;
}

function chunk(kind, data) {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = kind.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc(out.subarray(4, data.length + 8)));
  return out;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc(bytes) {
  let code = 0xffffffff;
  for (const byte of bytes) code = CRC[(code ^ byte) & 255] ^ (code >>> 8);
  return (code ^ 0xffffffff) >>> 0;
}

/** Bytes of base64 text. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
