// What the page knows: pictures, label maps, what is chosen. Every module is handed this object.

export const MODES = { both: "Both", rgb: "RGB alone", thermal: "Thermal alone" };

/**
 * Modules change the fields, say what `changed`, and draw their part when they are told.
 * Kinds of change:
 *   inputs   the pictures
 *   results  the label maps, or which of them and what below them is shown
 *   edits    the label map that is corrected
 *   colours  how label maps are painted
 *   choice   a class or a tool
 *   pointer  the point that the readout is about
 *   list     the pairs, their states, or which of them is shown
 *   light    range, colours or brightness of what is shown
 */
export class State {
  models = [];
  model = ""; // name of the chosen one
  words = []; // the classes that are looked for; none: all of the model's
  inputs = { rgb: null, thermal: null }; // {file, bitmap, name, inside, heat}
  offered = { rgb: null, thermal: null }; // files that were chosen, whether they can be shown or not
  mode = "both"; // a key of MODES, or "compare"
  results = new Map(); // mode -> Result
  saved = null; // label of the folder's pair: shown instead of a prediction
  labelTag = ""; // version of that label on disk, empty where there is none: a save replaces no other
  annotation = null; // the folder to annotate, as the service describes it
  pairIndex = null; // pair of the folder that is shown; null: other pictures are
  lastPairIndex = 0;
  batch = null; // several pairs at once (batch.js)
  itemIndex = null; // pair of the batch that is shown
  map = "grey"; // colours of the thermal picture
  window = null; // thermal values that are shown, [low, high]; null: the range of the picture
  range = ""; // thermal values that the model sees, LOW:HIGH; empty: as the service does it
  degrees = ""; // what raw thermal values are: celsius, kelvin, tlinear; empty: as the file says
  windowing = false; // a drag on the picture changes the window
  brightness = 1; // of the RGB picture
  fourChannel = "auto";
  base = "rgb"; // picture below the classes
  fittedSize = null; // of the pictures that the view was fitted to last
  pointer = null; // in picture coordinates
  highlighted = null; // class that alone is bright
  wantsEditing = false; // to correct, as soon as there is one map to correct
  editing = false;
  tool = "brush";
  paint = 1; // class id
  run = 0; // number of the newest choice; answers to older ones are dropped
  busy = 0;
  #listeners = {};

  on(kinds, act) {
    for (const kind of kinds.split(" ")) (this.#listeners[kind] ??= []).push(act);
  }

  changed(kind) {
    for (const act of this.#listeners[kind] ?? []) act();
  }

  get shownModes() {
    return this.mode === "compare" ? Object.keys(MODES) : [this.mode];
  }

  get comparing() {
    return this.mode === "compare";
  }

  /** The label map that is read out, corrected and saved. */
  get current() {
    return this.results.get(this.shownModes[0]);
  }

  get unsaved() {
    return [...this.results.values()].some((result) => result.unsaved);
  }

  /** Pair of the batch that is shown. */
  get item() {
    return this.itemIndex === null ? null : this.batch.items[this.itemIndex];
  }

  /** Pair of the folder that is shown. */
  get pair() {
    return this.pairIndex === null ? null : this.annotation.pairs[this.pairIndex];
  }

  /** {classes, ignore} that label maps are read with. */
  get table() {
    if (this.pair) return this.annotation;
    return this.models.find((model) => model.name === this.model) ?? this.models[0];
  }

  /** The table of an answer: its own, unless the folder to annotate has one. */
  tableOf({ classes }) {
    return this.pair || !classes ? this.table : { classes, ignore: this.table.ignore };
  }

  get sizesDiffer() {
    const { rgb, thermal } = this.inputs;
    if (!rgb || !thermal || thermal.inside) return false;
    return rgb.bitmap.width !== thermal.bitmap.width || rgb.bitmap.height !== thermal.bitmap.height;
  }

  /** The bitmap to draw below a result's classes. */
  pictureBelow(result, base = this.base) {
    if (this.base === "confidence" && result?.bitmap) return result.bitmap;
    const { rgb, thermal } = this.inputs;
    return (this.inputs[base] ?? rgb ?? thermal)?.bitmap ?? null;
  }

  /** What can lie below the classes. */
  get bases() {
    const there = { rgb: this.inputs.rgb, thermal: this.inputs.thermal, confidence: this.current?.bitmap };
    return Object.keys(there).filter((base) => there[base]);
  }

  setBase(base) {
    this.base = base;
    this.changed("results");
  }

  /** Let one class alone be bright; once more: all of them. */
  toggleHighlight(id) {
    this.highlighted = this.highlighted === id ? null : id;
    for (const result of this.results.values()) result.paint(this.highlighted);
    this.changed("colours");
    this.changed("choice");
  }

  /** Show no pair of the folder or the batch: other pictures come. */
  leaveList() {
    if (!this.pair && !this.item) return;
    if (this.pair) this.wantsEditing = false;
    this.pairIndex = this.itemIndex = null;
    this.inputs = { rgb: null, thermal: null };
    this.offered = { rgb: null, thermal: null };
    this.changed("list");
  }
}
