// The panes in which pictures and classes are looked at.

import { $, make, onClick, onRadio } from "./dom.js";
import { dragWindow } from "./heat.js";
import { MODES } from "./state.js";
import { Pane, View } from "./viewer.js";

const PLAIN = "picture"; // side by side there is one without classes, too

export class Stage {
  view = new View();
  panes = [];
  #opacityBefore = 60; // what the classes come back with

  /** `tool` is told what a pointer that paints does: begin(point), draw(point), end(), cancel(). */
  constructor(state, tool) {
    this.state = state;
    this.tool = tool;
    state.on("results", () => this.#draw());
    state.on("colours", () => this.panes.forEach((pane) => pane.draw()));
    state.on("choice", () => state.editing || this.panes.forEach((pane) => (pane.ring = null)));
    this.view.addEventListener("change", () => this.#drawScale());
    this.#wire();
  }

  #wire() {
    $("opacity").value = localStorage.getItem("opacity") ?? 60;
    $("opacity").addEventListener("input", () => this.setOpacity($("opacity").value));
    onRadio("base", (base) => this.state.setBase(base));
    onClick("in", () => this.zoom(1.4));
    onClick("out", () => this.zoom(1 / 1.4));
    onClick("fit", () => this.fit());
  }

  #draw() {
    const { state, panes } = this;
    const shown = state.shownModes;
    if (state.comparing) shown.push(PLAIN);
    document.body.classList.toggle("comparing", state.comparing);
    const { rgb, thermal } = state.inputs;
    const shape = (rgb ?? thermal)?.bitmap;
    if (shape) $("view").style.setProperty("--shape", shape.width / shape.height); // phones give it room by this
    while (panes.length < shown.length) panes.push(this.#createPane());
    panes.forEach((pane, index) => this.#drawPane(pane, shown[index]));
    const size = panes[0].size?.join();
    if (size && size !== state.fittedSize) {
      state.fittedSize = size;
      this.fit();
    }
    for (const input of document.getElementsByName("base")) {
      input.disabled = input.value === "confidence" ? !state.current?.bitmap : !state.inputs[input.value];
      input.checked = input.value === state.base;
    }
  }

  #drawPane(pane, mode) {
    const { state } = this;
    pane.figure.hidden = !mode;
    if (!mode) return;
    const result = state.results.get(mode);
    pane.mode = mode;
    pane.base = state.pictureBelow(result, state.comparing && state.inputs[mode] ? mode : state.base);
    pane.colours = result?.colours ?? null;
    pane.map = (result ?? state.current)?.map ?? null;
    pane.brightness = pane.base === state.inputs.rgb?.bitmap ? state.brightness : 1;
    pane.opacity = $("opacity").value / 100;
    pane.caption.hidden = !state.comparing;
    const title = mode === PLAIN ? "Picture" : `Picture and classes, ${MODES[mode]}`;
    pane.canvas.setAttribute("aria-label", `${title}. Arrow keys move it.`);
    pane.draw();
  }

  #createPane() {
    const { state, tool } = this;
    const canvas = make("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    const caption = make("figcaption");
    const figure = make("figure", { className: "pane" }, canvas, caption);
    $("panes").append(figure);
    const pane = new Pane(canvas, this.view, {
      paints: () => state.editing && !state.windowing,
      drag: (dx, dy) => state.windowing && (dragWindow(state, dx, dy), true),
      hover: (point) => this.hover(point),
      leave: () => this.hover(null),
      begin: (point) => tool.begin(point),
      draw: (point) => tool.draw(point),
      end: () => tool.end(),
      cancel: () => tool.cancel(),
    });
    return Object.assign(pane, { figure, caption });
  }

  #drawScale() {
    $("scale").textContent = `${Math.round(100 * this.view.scale)} %`;
    document.body.classList.toggle("zoomed", this.view.zoomed);
    if (!this.state.pointer) this.state.changed("pointer");
  }

  /** Draw the brush where the pointer is, and read out what is there; null: nowhere. */
  hover(point) {
    const { state } = this;
    state.pointer = point;
    const ring = state.editing && point && state.tool !== "fill" ? { ...point, radius: $("size").value / 2 } : null;
    for (const pane of this.panes) {
      pane.ring = ring;
      if (ring) pane.draw();
    }
    state.changed("pointer");
  }

  /** What the keyboard reads: the middle of the picture that has the focus. */
  get middle() {
    const pane = this.panes.find(({ canvas }) => canvas === document.activeElement);
    return pane ? this.view.at(pane.width / 2, pane.height / 2) : null;
  }

  fit() {
    this.panes[0]?.fit();
  }

  /** Bring a point of the picture into the middle, with a ring around it. */
  show(point, radius) {
    const [pane] = this.panes;
    if (!pane?.size) return;
    const at = [(point.x - this.view.at(0, 0).x) * this.view.scale, (point.y - this.view.at(0, 0).y) * this.view.scale];
    this.view.pan(pane.width / 2 - at[0], pane.height / 2 - at[1]);
    for (const each of this.panes) each.ring = { x: point.x + 0.5, y: point.y + 0.5, radius };
    for (const each of this.panes) each.draw();
  }

  zoom(factor) {
    const [pane] = this.panes;
    if (pane?.size) this.view.zoom(factor, pane.width / 2, pane.height / 2);
  }

  setOpacity(value) {
    $("opacity").value = value;
    for (const pane of this.panes) {
      pane.opacity = $("opacity").value / 100;
      pane.draw();
    }
    localStorage.setItem("opacity", $("opacity").value);
  }

  toggleClasses() {
    const value = Number($("opacity").value);
    if (value) this.#opacityBefore = value;
    this.setOpacity(value ? 0 : this.#opacityBefore);
  }
}
