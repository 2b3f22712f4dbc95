// What changes a label map: strokes of the chosen tool, what clicks have found, undo and redo.

import { Clicks } from "./clicks.js";
import { $ } from "./dom.js";
import { fill, join, stroke } from "./editor.js";

export class Pen {
  #stroke = null; // in the making: {result, before, last, changed}

  constructor(state) {
    this.state = state;
    this.clicks = new Clicks(state, (...found) => this.#stamp(...found));
  }

  begin(point, event) {
    const { current, tool } = this.state;
    if (!current) return;
    if (tool === "click") return this.clicks.begin(point, event);
    this.#stroke = { result: current, before: current.map.labels.slice(), last: point, changed: null };
    if (tool === "fill") this.#touch(fill(current.map, point, this.#ink));
    else this.draw(point);
  }

  draw(point, event) {
    if (!this.#stroke) return this.clicks.draw(point, event);
    if (this.state.tool === "fill") return undefined;
    const { result, last } = this.#stroke;
    this.#touch(stroke(result.map, last, point, $("size").value / 2, this.#ink));
    this.#stroke.last = point;
  }

  end(event) {
    if (!this.#stroke) return this.clicks.end(event);
    const { result, before, changed } = this.#stroke ?? {};
    if (changed) {
      result.history.add(result.map, before, changed);
      this.#noteEdit(result);
    }
    this.#stroke = null;
  }

  cancel() {
    if (!this.#stroke) return this.clicks.cancel();
    const { result, before, changed } = this.#stroke ?? {};
    if (changed) {
      result.map.labels.set(before);
      this.#repaint(result, changed);
    }
    this.#stroke = null;
  }

  /** Use the tool at one point: correcting without a mouse. */
  dab(point, takes = false) {
    if (this.state.tool === "click") return this.clicks.click(point, takes);
    this.begin(point);
    this.end();
  }

  /** Take the last click of an open preview back, else the last change. */
  undo() {
    if (this.clicks.open) this.clicks.undo();
    else this.#travel("undo");
  }

  redo() {
    if (!this.clicks.open) this.#travel("redo");
  }

  /** Give what lies in a mask another class, as one change. */
  #stamp(result, mask, where, ink) {
    const before = result.map.labels.slice();
    mask.labels.forEach((inside, index) => inside && (result.map.labels[index] = ink));
    result.history.add(result.map, before, where);
    this.#repaint(result, where);
    this.#noteEdit(result);
  }

  #travel(direction) {
    const { current, editing } = this.state;
    const where = current && editing && current.history[direction](current.map);
    if (!where) return;
    this.#repaint(current, where);
    this.#noteEdit(current);
  }

  get #ink() {
    return this.state.tool === "eraser" ? this.#stroke.result.restId : this.state.paint;
  }

  #touch(changed) {
    if (!changed) return;
    this.#stroke.changed = join(this.#stroke.changed, changed);
    this.#repaint(this.#stroke.result, changed);
  }

  #repaint(result, where) {
    result.paint(this.state.highlighted, where);
    this.state.changed("colours");
  }

  #noteEdit(result) {
    result.edited = result.restored || result.history.done.length > 0;
    result.unsaved = result.edited || Boolean(this.state.pair); // undone, it differs from its file
    result.count();
    this.state.changed("edits");
  }
}
