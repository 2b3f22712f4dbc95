// What clicks have found, before it is painted: the mask in its class's colour, the clicks and the box.

import { join } from "./editor.js";

const MARK = 5; // radius of a click's mark in screen pixels

/** The part of a picture that a mask {labels, size} of ones touches: [left, top, right, bottom); null: none. */
export function boundsOf({ labels, size: [height, width] }) {
  let where = null;
  for (let y = 0; y < height; y++) {
    const row = labels.subarray(y * width, (y + 1) * width);
    const first = row.indexOf(1);
    if (first >= 0) where = join(where, [first, y, row.lastIndexOf(1) + 1, y + 1]);
  }
  return where;
}

export class Preview {
  answer = null; // {mask, where, ...} of the newest click that has one
  points = []; // {x, y, adds} in picture coordinates
  box = null; // [x0, y0, x1, y1]
  #canvas = null;

  take(answer, colour) {
    this.answer = answer;
    this.tint(colour);
  }

  /** Show the mask in another colour. */
  tint(colour) {
    this.#canvas = null;
    if (!this.answer?.where) return;
    const { mask: { labels, size }, where: [left, top, right, bottom] } = this.answer;
    const canvas = new OffscreenCanvas(right - left, bottom - top);
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, canvas.height);
    const words = new Uint32Array(picture.data.buffer);
    const [red, green, blue] = colour;
    const [inner, border] = [190, 255].map((alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0);
    for (let y = top, out = 0; y < bottom; y++) {
      for (let x = left, i = y * size[1] + left; x < right; x++, i++, out++) {
        if (labels[i]) words[out] = isBorder(labels, size, x, y, i) ? border : inner;
      }
    }
    context.putImageData(picture, 0, 0);
    this.#canvas = canvas;
  }

  /** Draw it where the picture is drawn, `scale` screen pixels to one of the picture. */
  drawOn(context, scale) {
    if (this.#canvas) context.drawImage(this.#canvas, this.answer.where[0], this.answer.where[1]);
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      outline(context, scale, () => context.rect(x0, y0, x1 - x0, y1 - y0));
    }
    const reach = MARK / scale;
    for (const { x, y, adds } of this.points) {
      outline(context, scale, () => {
        context.moveTo(x - reach, y);
        context.lineTo(x + reach, y);
        if (!adds) return;
        context.moveTo(x, y - reach);
        context.lineTo(x, y + reach);
      });
    }
  }
}

function isBorder(labels, [height, width], x, y, i) {
  return (
    (x > 0 && !labels[i - 1]) ||
    (y > 0 && !labels[i - width]) ||
    (x < width - 1 && !labels[i + 1]) ||
    (y < height - 1 && !labels[i + width])
  );
}

/** A white line with a dark rim: it is seen on everything. */
function outline(context, scale, trace) {
  for (const [style, width] of [["#000b", 4], ["#fff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width / scale;
    context.beginPath();
    trace();
    context.stroke();
  }
}
