// One picture on a canvas, with its label map over it; the view is shared, so that panes move as one.

const LARGEST = 40; // screen pixels per image pixel

/** Which part of the picture is seen, for all panes: scale and offset in CSS pixels. */
export class View extends EventTarget {
  constructor() {
    super();
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.fitted = true;
  }

  get zoomed() {
    return !this.fitted;
  }

  fit(pane, size) {
    const [height, width] = size;
    this.scale = Math.min(pane.width / width, pane.height / height);
    this.smallest = this.scale / 2;
    this.x = (pane.width - width * this.scale) / 2;
    this.y = (pane.height - height * this.scale) / 2;
    this.fitted = true;
    this.#tell();
  }

  /** Zoom by a factor and keep the point at (x, y) of the pane where it is. */
  zoom(factor, x, y) {
    const scale = Math.min(LARGEST, Math.max(this.smallest ?? 0.05, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.#tell();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.#tell();
  }

  /** Picture coordinates of a point in the pane. */
  at(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The class colours of a map as a canvas that is repaired where the map changes. */
export class Colours {
  constructor(map) {
    this.map = map;
    const [height, width] = map.size;
    this.layers = [1, 2].map(() => {
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(width, height);
      return { canvas, context, pixels, words: new Uint32Array(pixels.data.buffer) };
    });
  }

  /** Areas with the opacity, their borders stronger, so that what is small is seen as well. */
  drawOn(context, opacity) {
    const [areas, borders] = this.layers;
    for (const [layer, alpha] of [[areas, opacity], [borders, Math.min(1, 2 * opacity)]]) {
      context.globalAlpha = alpha;
      context.drawImage(layer.canvas, 0, 0);
    }
    context.globalAlpha = 1;
  }

  /** Paint the colours anew; `only` dims every other class. */
  paint(table, only = null, where = null) {
    const [height, width] = this.map.size;
    const { labels } = this.map;
    const [areas, borders] = this.layers;
    const inner = new Map();
    const edge = new Map();
    for (const { id, colour, rest } of table) {
      const alpha = only !== null && only !== id ? 45 : 255;
      inner.set(id, rest && only !== id ? 0 : pack(colour, alpha));
      edge.set(id, rest ? 0 : pack(colour, alpha));
    }
    const [left, top, right, bottom] = where
      ? [Math.max(0, where[0] - 1), Math.max(0, where[1] - 1), Math.min(width, where[2] + 1), Math.min(height, where[3] + 1)]
      : [0, 0, width, height];
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const i = y * width + x;
        const id = labels[i];
        const border =
          (x > 0 && labels[i - 1] !== id) ||
          (y > 0 && labels[i - width] !== id) ||
          (x < width - 1 && labels[i + 1] !== id) ||
          (y < height - 1 && labels[i + width] !== id);
        areas.words[i] = inner.get(id) ?? 0;
        borders.words[i] = border ? edge.get(id) ?? 0 : 0;
      }
    }
    for (const { context, pixels } of this.layers) {
      context.putImageData(pixels, 0, 0, left, top, right - left, bottom - top);
    }
  }
}

/** A picture with its dark parts lifted; drawn anew only when it or the brightness changes. */
class Lit {
  of(picture, brightness) {
    if (brightness === 1) return picture;
    if (this.picture !== picture || this.brightness !== brightness) this.#draw(picture, brightness);
    return this.canvas;
  }

  #draw(picture, brightness) {
    Object.assign(this, { picture, brightness, canvas: new OffscreenCanvas(picture.width, picture.height) });
    const context = this.canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, picture.width, picture.height);
    const table = Uint8Array.from({ length: 256 }, (_, level) => Math.round(255 * (level / 255) ** (1 / brightness)));
    const { data } = pixels;
    for (let i = 0; i < data.length; i++) if (i % 4 !== 3) data[i] = table[data[i]];
    context.putImageData(pixels, 0, 0);
  }
}

function pack([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** A pane: draws base picture and colours, and tells what fingers, mouse and keys do on it. */
export class Pane {
  constructor(canvas, view, hooks) {
    this.canvas = canvas;
    this.view = view;
    this.hooks = hooks;
    this.base = null;
    this.colours = null;
    this.map = null;
    this.opacity = 0.55;
    this.brightness = 1;
    this.lit = new Lit();
    this.preview = null; // drawn over the classes: drawOn(context, scale)
    this.ring = null; // brush outline: {x, y, radius} in picture coordinates
    this.fingers = new Map();
    this.drawing = false;
    this.nextFrame = 0; // request of an animation frame
    view.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#listen();
  }

  get width() {
    return this.canvas.clientWidth;
  }

  get height() {
    return this.canvas.clientHeight;
  }

  get size() {
    if (this.map) return this.map.size;
    return this.base ? [this.base.height, this.base.width] : null;
  }

  fit() {
    if (this.size && this.width) this.view.fit(this, this.size);
  }

  draw() {
    if (!this.nextFrame) this.nextFrame = requestAnimationFrame(() => this.#paint());
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    if (this.view.fitted) this.fit();
    this.#paint();
  }

  #paint() {
    this.nextFrame = 0;
    const context = this.canvas.getContext("2d");
    const ratio = this.canvas.width / Math.max(1, this.width);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.size) return;
    const { scale, x, y } = this.view;
    const [height, width] = this.size;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    context.imageSmoothingEnabled = ratio * scale < 2;
    context.imageSmoothingQuality = "high";
    if (this.base) context.drawImage(this.lit.of(this.base, this.brightness), 0, 0, width, height);
    if (this.colours && this.opacity > 0) this.colours.drawOn(context, this.opacity);
    this.preview?.drawOn(context, scale);
    if (this.ring) {
      context.lineWidth = 1.5 / scale;
      for (const [style, grow] of [["#000a", 1 / scale], ["#fff", 0]]) {
        context.strokeStyle = style;
        context.beginPath();
        context.arc(this.ring.x, this.ring.y, this.ring.radius + grow, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.#up(event));
    }
    canvas.addEventListener("pointerleave", () => {
      this.ring = null;
      this.hooks.leave();
      this.draw();
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => !this.hooks.paints() && this.fit());
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!this.size) return;
        event.preventDefault();
        const step = event.deltaY * (event.deltaMode === 1 ? 18 : 1) * (event.ctrlKey ? 4 : 1);
        this.view.zoom(Math.exp(-step / 500), event.offsetX, event.offsetY);
      },
      { passive: false },
    );
  }

  #down(event) {
    if (!this.size) return;
    this.fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    this.canvas.setPointerCapture(event.pointerId);
    const moves = event.button !== 0 || event.shiftKey;
    if (this.fingers.size === 1 && this.hooks.paints() && !moves) {
      this.drawing = true;
      this.hooks.begin(this.view.at(event.offsetX, event.offsetY), event);
    } else if (this.fingers.size === 2 && this.drawing) {
      this.drawing = false;
      this.hooks.cancel(); // a second finger: it was meant to zoom
    }
    this.hooks.hover(this.view.at(event.offsetX, event.offsetY));
  }

  #move(event) {
    if (!this.size) return;
    const before = this.fingers.get(event.pointerId);
    if (before && this.drawing) {
      const passed = event.getCoalescedEvents?.() ?? [];
      const frame = this.canvas.getBoundingClientRect();
      for (const part of passed.length ? passed : [event]) {
        this.hooks.draw(this.view.at(part.clientX - frame.left, part.clientY - frame.top), part);
      }
    } else if (before && this.fingers.size === 1) {
      const [dx, dy] = [event.offsetX - before.x, event.offsetY - before.y];
      if (!this.hooks.drag(dx, dy)) this.view.pan(dx, dy);
    } else if (before && this.fingers.size === 2) {
      this.#pinch(event, before);
    }
    if (before) this.fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    this.hooks.hover(this.view.at(event.offsetX, event.offsetY));
  }

  #pinch(event, before) {
    const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y);
    const now = { x: event.offsetX, y: event.offsetY };
    this.view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    if (apart(before) > 4) {
      this.view.zoom(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
    if (this.drawing && !this.fingers.size) {
      this.drawing = false;
      this.hooks.end(event);
    }
  }
}

