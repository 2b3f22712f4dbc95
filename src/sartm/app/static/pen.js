// What changes a label map: strokes of the chosen tool, undo and redo.

import { $ } from "./dom.js";
import { fill, join, stroke } from "./editor.js";

export class Pen {
  #stroke = null; // in the making: {result, before, last, changed}

  constructor(state) {
    this.state = state;
  }

  begin(point) {
    const { current, tool } = this.state;
    if (!current) return;
    this.#stroke = { result: current, before: current.map.labels.slice(), last: point, changed: null };
    if (tool === "fill") this.#touch(fill(current.map, point, this.#ink));
    else this.draw(point);
  }

  draw(point) {
    if (!this.#stroke || this.state.tool === "fill") return;
    const { result, last } = this.#stroke;
    this.#touch(stroke(result.map, last, point, $("size").value / 2, this.#ink));
    this.#stroke.last = point;
  }

  end() {
    const { result, before, changed } = this.#stroke ?? {};
    if (changed) {
      result.history.add(result.map, before, changed);
      this.#noteEdit(result);
    }
    this.#stroke = null;
  }

  cancel() {
    const { result, before, changed } = this.#stroke ?? {};
    if (changed) {
      result.map.labels.set(before);
      this.#repaint(result, changed);
    }
    this.#stroke = null;
  }

  /** Use the tool at one point: correcting without a mouse. */
  dab(point) {
    this.begin(point);
    this.end();
  }

  undo() {
    this.#travel("undo");
  }

  redo() {
    this.#travel("redo");
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
