// Clicks on the picture: the service says what they mean, and that is previewed until it is painted or dropped.

import { form, requestPatiently } from "./api.js";
import { paintMask } from "./codec.js";
import { inputFields } from "./labelling.js";
import { attempt, say } from "./notices.js";
import { boundsOf, Preview } from "./preview.js";

const PRESS = 500; // milliseconds after which a touch takes away
const STILL = { touch: 10, mouse: 4 }; // screen pixels that a click may move

/** Whether the chosen model answers clicks; a sentence for the user where it does not. */
export function whyNoClicks({ model, models }) {
  if (models.find(({ name }) => name === model)?.clicks) return "";
  const able = models.filter(({ clicks }) => clicks).map(({ name }) => name);
  return able.length ? `This model answers no clicks. Choose ${able.join(" or ")}.` : "No model here answers clicks.";
}

export class Clicks {
  #trails = []; // one per object, the open one last: {result, steps, ink, accepted}
  #gesture = null; // of the pointer that is down
  #scene = null; // {key, id}: the pair as the service has encoded it; `id` is a promise
  #asks = null; // the promise of all answers that are waited for

  /** `paint(result, mask, where, ink)` writes a mask into a label map. */
  constructor(state, paint) {
    this.state = state;
    this.paint = paint;
    state.finish = () => this.finish();
    state.on("choice", () => this.#follow());
    state.on("results", () => this.#leave());
  }

  get #ready() {
    const { current, editing, tool } = this.state;
    return editing && tool === "click" && Boolean(current);
  }

  get #open() {
    const trail = this.#trails.at(-1);
    return trail && !trail.accepted ? trail : null;
  }

  get open() {
    return Boolean(this.#open);
  }

  // What a pointer does

  begin(point, event = {}) {
    const kind = event.pointerType === "touch" ? "touch" : "mouse";
    const gesture = { start: point, from: event, takes: Boolean(event.altKey), kind, end: null, over: false };
    if (kind === "touch") gesture.timer = setTimeout(() => this.#press(gesture), PRESS);
    this.#gesture = gesture;
  }

  draw(point, event) {
    const gesture = this.#gesture;
    if (!gesture || gesture.over) return;
    const moved = Math.hypot(event.clientX - gesture.from.clientX, event.clientY - gesture.from.clientY);
    if (!gesture.end && moved < STILL[gesture.kind]) return;
    clearTimeout(gesture.timer);
    gesture.end = point;
    this.#draw();
  }

  end(event) {
    const gesture = this.#gesture;
    if (!gesture) return;
    this.cancel();
    if (gesture.over || event?.type === "pointercancel") return;
    if (gesture.end) this.#add({ box: corners(gesture.start, gesture.end) });
    else this.click(gesture.start, gesture.takes);
  }

  cancel() {
    if (!this.#gesture) return;
    clearTimeout(this.#gesture.timer);
    this.#gesture = null;
    this.#draw();
  }

  #press(gesture) {
    gesture.over = true;
    navigator.vibrate?.(20);
    this.click(gesture.start, true);
  }

  /** Add what is at a point, or take it away. */
  click({ x, y }, takes = false) {
    const { current } = this.state;
    const [height, width] = current?.map.size ?? [0, 0];
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const away = takes || this.state.takesAway;
    if (away && !this.open) say("Click on a thing first; then take away what does not belong to it.");
    else this.#add({ point: { x, y, adds: !away } });
  }

  #add({ point, box }) {
    const { current, paint } = this.state;
    if (!current) return;
    if (!this.open) this.#trails.push({ result: current, steps: [], ink: paint, accepted: false });
    const { steps } = this.#open;
    const last = steps.at(-1) ?? { points: [], box: null };
    steps.push({ points: point ? [...last.points, point] : last.points, box: box ?? last.box, answer: null });
    this.#show();
    this.#ask();
  }

  // What becomes of it

  /** Take the last click back. */
  undo() {
    const { steps } = this.#open;
    steps.pop();
    if (!steps.length) this.drop();
    else this.#show();
    this.#ask();
  }

  /** Paint what was found, as soon as it is known. */
  accept() {
    const trail = this.#open;
    if (!trail) return;
    Object.assign(trail, { accepted: true, ink: this.state.paint });
    this.#settle();
    this.#show();
    this.#ask();
  }

  drop() {
    this.#trails = this.#trails.filter(({ accepted }) => accepted);
    this.#show();
  }

  /** Paint what is open, before the map is saved or left. */
  async finish() {
    this.accept();
    await this.#asks;
  }

  /** Another class or tool was chosen. */
  #follow() {
    if (this.open && !this.#ready) this.accept();
    this.state.preview?.tint(this.#colour);
    this.state.changed("preview");
    this.#prepare();
  }

  /** Other pictures came, or another label map of the same. */
  #leave() {
    const { current, results } = this.state;
    const open = this.#open;
    if (open && open.result !== current && [...results.values()].includes(open.result)) this.accept();
    if (this.#trails.some(({ result }) => result !== current)) {
      this.#trails = this.#trails.filter(({ result }) => result === current);
      this.#show();
    }
    this.#prepare();
  }

  /** Have the pair encoded while the user still looks for the first thing to click on. */
  #prepare() {
    if (this.#ready && !whyNoClicks(this.state)) this.#encode().catch(() => undefined); // said when it is needed
  }

  /** Paint what is accepted and known. */
  #settle() {
    while (this.#trails[0]?.accepted && this.#trails[0].steps.at(-1).answer) {
      const { result, steps, ink } = this.#trails.shift();
      const { mask, where } = steps.at(-1).answer;
      if (where) this.paint(result, mask, where, ink);
    }
  }

  // What is shown

  get #colour() {
    return this.state.current?.classOf(this.state.paint).colour ?? [0, 0, 0];
  }

  #show() {
    const { state } = this;
    const trail = this.#open;
    if (!trail) {
      state.takesAway = false;
      state.preview = null;
    } else {
      const step = trail.steps.at(-1);
      state.preview ??= new Preview();
      state.preview.points = step.points;
      if (step.answer && state.preview.answer !== step.answer) state.preview.take(step.answer, this.#colour);
    }
    this.#draw();
  }

  /** The box, of the prompt or under the pointer. */
  #draw() {
    const { state } = this;
    const drawn = this.#gesture?.end ? corners(this.#gesture.start, this.#gesture.end) : null;
    const box = drawn ?? this.#open?.steps.at(-1).box ?? null;
    if (drawn) state.preview ??= new Preview();
    if (!drawn && !this.open) state.preview = null;
    if (state.preview) state.preview.box = box;
    state.changed("preview");
  }

  // What is asked of the service

  #ask() {
    this.#asks ??= this.#askAll().finally(() => (this.#asks = null));
  }

  /** One request at a time, for the newest click: those it has overtaken are not asked for. */
  async #askAll() {
    for (let trail; (trail = this.#trails.find(({ steps }) => !steps.at(-1).answer)); ) {
      const step = trail.steps.at(-1);
      const before = trail.steps.findLast(({ answer }) => answer)?.answer;
      const answer = await attempt(this.state, () => this.#find(trail, step, before));
      step.answer = answer ?? null;
      if (!answer) this.#giveUp(trail, step);
      this.#settle();
      this.#show();
    }
  }

  /** Without an answer a click was none. */
  #giveUp(trail, step) {
    const index = trail.steps.indexOf(step);
    if (index >= 0) trail.steps.length = index;
    if (!trail.steps.length) this.#trails = this.#trails.filter((other) => other !== trail);
  }

  async #find(trail, { points, box }, before) {
    const prompt = {
      points: points.map(({ x, y }) => [x - 0.5, y - 0.5]), // to the service 0 is the middle of a pixel
      labels: points.map(({ adds }) => Number(adds)),
      box: box?.map((side) => side - 0.5),
    };
    const again = before && { ...prompt, mask: before.segmentation };
    let scene = await this.#encode(true);
    let json;
    try {
      json = await ask(scene, before?.scene === scene ? { ...prompt, after: before.number } : again ?? prompt);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#scene = null; // it was dropped
      scene = await this.#encode(true);
      json = await ask(scene, again ?? prompt);
    }
    if (!this.#trails.includes(trail)) return null; // other pictures came meanwhile
    const { answer: number, pixels, score, segmentation } = json;
    const mask = { size: trail.result.map.size, labels: new Uint8Array(trail.result.map.labels.length) };
    paintMask(mask.labels, mask.size, segmentation.counts, 1);
    return { scene, number, pixels, score, segmentation, mask, where: boundsOf(mask) };
  }

  /** The id under which the service keeps the pair that is shown; it is sent first, `again` if that failed. */
  async #encode(again = false) {
    const { state } = this;
    const { inputs, mode, model, range, fourChannel, sizesDiffer } = state;
    const files = { rgb: inputs.rgb?.file, thermal: inputs.thermal?.file };
    const key = [files.rgb, files.thermal, mode, model, range, fourChannel, sizesDiffer];
    if (!this.#scene || (this.#scene.failed && again) || key.some((part, index) => part !== this.#scene.key[index])) {
      const scene = { key, id: encode(state, files, mode, sizesDiffer) };
      scene.id.catch(() => (scene.failed = true));
      this.#scene = scene;
    }
    return this.#scene.id;
  }
}

async function encode(state, files, mode, resize) {
  const fields = { ...(await inputFields(state, files, resize)), modality: mode };
  return (await (await requestPatiently("/v1/scenes", form(fields))).json()).id;
}

async function ask(scene, prompt) {
  const headers = { "Content-Type": "application/json" };
  const options = { method: "POST", headers, body: JSON.stringify(prompt) };
  return (await requestPatiently(`/v1/scenes/${scene}/mask`, options)).json();
}

function corners(a, b) {
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
}
