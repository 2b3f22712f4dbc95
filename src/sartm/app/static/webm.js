// A film of encoded pictures as WebM: just what players need of its format (Matroska).

const ID = {
  ebml: [0x1a, 0x45, 0xdf, 0xa3], segment: [0x18, 0x53, 0x80, 0x67], info: [0x15, 0x49, 0xa9, 0x66],
  tracks: [0x16, 0x54, 0xae, 0x6b], track: [0xae], video: [0xe0], cluster: [0x1f, 0x43, 0xb6, 0x75], block: [0xa3],
};

/** Blob of the film; `chunks` are {data, time (ms), key} in order. */
export function writeWebm({ codec, width, height, duration }, chunks) {
  const head = element(ID.ebml, [
    element([0x42, 0x86], number(1)), element([0x42, 0xf7], number(1)), element([0x42, 0xf2], number(4)),
    element([0x42, 0xf3], number(8)), element([0x42, 0x82], text("webm")),
    element([0x42, 0x87], number(4)), element([0x42, 0x85], number(2)),
  ]);
  const info = element(ID.info, [
    element([0x2a, 0xd7, 0xb1], number(1_000_000)), // a tick is a millisecond
    element([0x44, 0x89], float(duration)), element([0x4d, 0x80], text("sartm")), element([0x57, 0x41], text("sartm")),
  ]);
  const video = element(ID.video, [element([0xb0], number(width)), element([0xba], number(height))]);
  const track = element(ID.track, [
    element([0xd7], number(1)), element([0x73, 0xc5], number(1)), element([0x83], number(1)),
    element([0x86], text(codec)), video,
  ]);
  const segment = element(ID.segment, [info, element(ID.tracks, [track]), ...clusters(chunks)]);
  return new Blob([head, segment].flat(Infinity), { type: "video/webm" });
}

/** One per key picture, where players can start; times within one are counted in 16 bits. */
function clusters(chunks) {
  const groups = [];
  for (const chunk of chunks) {
    if (chunk.key || !groups.length || chunk.time - groups.at(-1)[0].time > 30_000) groups.push([]);
    groups.at(-1).push(chunk);
  }
  return groups.map((group) => {
    const begin = group[0].time;
    const blocks = group.map(({ data, time, key }) => {
      const head = new Uint8Array([0x81, (time - begin) >> 8, (time - begin) & 255, key ? 0x80 : 0]);
      return element(ID.block, [head, data]);
    });
    return element(ID.cluster, [element([0xe7], number(begin)), ...blocks]);
  });
}

/** Nested lists of bytes: the name of an element, its length, what is in it. */
function element(id, content) {
  const parts = [content].flat(Infinity);
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(size));
  length[0] |= 0x01; // lengths are written in eight bytes
  return [new Uint8Array(id), length, parts];
}

function number(value) {
  const bytes = [];
  for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest & 255);
  return new Uint8Array(bytes.length ? bytes : [0]);
}

function float(value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value);
  return bytes;
}

const text = (words) => new TextEncoder().encode(words);
