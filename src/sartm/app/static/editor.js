// Changes to a label map: brush, fill, and the history that takes them back.

/** The part of a map that a change may have touched: [left, top, right, bottom), or null. */
function box(width, height, left, top, right, bottom) {
  const clipped = [
    Math.max(0, left),
    Math.max(0, top),
    Math.min(width, right),
    Math.min(height, bottom),
  ];
  return clipped[0] < clipped[2] && clipped[1] < clipped[3] ? clipped : null;
}

export function join(a, b) {
  if (!a || !b) return a || b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

/** Set every pixel whose centre lies within `radius` of the line between two points. */
export function stroke(map, from, to, radius, value) {
  const [height, width] = map.size;
  const changed = box(
    width,
    height,
    Math.floor(Math.min(from.x, to.x) - radius),
    Math.floor(Math.min(from.y, to.y) - radius),
    Math.ceil(Math.max(from.x, to.x) + radius) + 1,
    Math.ceil(Math.max(from.y, to.y) + radius) + 1,
  );
  if (!changed) return null;
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = dx * dx + dy * dy || 1;
  const reach = Math.max(radius, 0.71) ** 2; // the smallest brush is one pixel
  for (let y = changed[1]; y < changed[3]; y++) {
    for (let x = changed[0]; x < changed[2]; x++) {
      const px = x + 0.5 - from.x;
      const py = y + 0.5 - from.y;
      const t = Math.min(1, Math.max(0, (px * dx + py * dy) / length));
      if ((px - t * dx) ** 2 + (py - t * dy) ** 2 <= reach) map.labels[y * width + x] = value;
    }
  }
  return changed;
}

/** Give the connected region of one class at a point another class. */
export function fill(map, point, value) {
  const [height, width] = map.size;
  const { labels } = map;
  const x0 = Math.floor(point.x);
  const y0 = Math.floor(point.y);
  if (x0 < 0 || y0 < 0 || x0 >= width || y0 >= height) return null;
  const old = labels[y0 * width + x0];
  if (old === value) return null;
  let changed = null;
  const waiting = [[x0, y0]];
  while (waiting.length) {
    const [x, y] = waiting.pop();
    const row = y * width;
    if (labels[row + x] !== old) continue;
    let left = x;
    let right = x;
    while (left > 0 && labels[row + left - 1] === old) left--;
    while (right < width - 1 && labels[row + right + 1] === old) right++;
    labels.fill(value, row + left, row + right + 1);
    changed = join(changed, [left, y, right + 1, y + 1]);
    for (const next of [y - 1, y + 1]) {
      if (next < 0 || next >= height) continue;
      for (let i = left; i <= right; i++) {
        const here = labels[next * width + i] === old;
        if (here && (i === left || labels[next * width + i - 1] !== old)) waiting.push([i, next]);
      }
    }
  }
  return changed;
}

function cut(labels, width, [left, top, right, bottom]) {
  const part = new labels.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    part.set(labels.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return part;
}

function paste(labels, width, [left, top, right, bottom], part) {
  for (let y = top; y < bottom; y++) {
    const start = (y - top) * (right - left);
    labels.set(part.subarray(start, start + right - left), y * width + left);
  }
}

/** Undo and redo by the rectangles that changed; the oldest go when they take too much memory. */
export class History {
  constructor(limit = 64 * 2 ** 20) {
    this.limit = limit;
    this.done = [];
    this.undone = [];
  }

  /** Remember a change of `map` within `changed`; `before` is the whole map as it was. */
  add(map, before, changed) {
    const width = map.size[1];
    this.done.push({ changed, before: cut(before, width, changed), after: cut(map.labels, width, changed) });
    this.undone = [];
    let bytes = 0;
    for (const { before: part } of this.done) bytes += 2 * part.byteLength;
    while (bytes > this.limit && this.done.length > 1) bytes -= 2 * this.done.shift().before.byteLength;
  }

  /** Take the last change back; returns where, or null. */
  undo(map) {
    return this.#move(map, this.done, this.undone, "before");
  }

  redo(map) {
    return this.#move(map, this.undone, this.done, "after");
  }

  #move(map, from, to, which) {
    const change = from.pop();
    if (!change) return null;
    paste(map.labels, map.size[1], change.changed, change[which]);
    to.push(change);
    return change.changed;
  }
}
