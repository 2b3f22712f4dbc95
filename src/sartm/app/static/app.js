// The start of the page: its parts are put together, models and first pictures fetched. Uses the REST API only.

import { requestJson, takeToken } from "./api.js";
import { wireClasses } from "./classes.js";
import { wireCorrection } from "./correction.js";
import { $, onClick } from "./dom.js";
import { wireDownloads } from "./downloads.js";
import { listExamples } from "./examples.js";
import { openFolder, wireFolder } from "./folder.js";
import { wireHeat } from "./heat.js";
import { wireKeyboard } from "./keyboard.js";
import { wireLabelling } from "./labelling.js";
import { wireLegend } from "./legend.js";
import { wireList } from "./list.js";
import { wireModels } from "./models.js";
import { attempt } from "./notices.js";
import { wireObjects } from "./objects.js";
import { wirePair } from "./pair.js";
import { Pen } from "./pen.js";
import { wireReadout } from "./readout.js";
import { Stage } from "./stage.js";
import { State } from "./state.js";
import { followSystemTheme, showTheme, switchTheme } from "./theme.js";

/** Each part draws what it shows of the state when that changes, in this order. */
function wire(state) {
  const pen = new Pen(state);
  wireHeat(state); // paints the thermal picture before it is shown
  const stage = new Stage(state, pen);
  wirePair(state);
  wireModels(state);
  wireClasses(state);
  wireList(state);
  wireLabelling(state);
  wireCorrection(state, stage, pen);
  wireLegend(state);
  wireFolder(state);
  wireDownloads(state);
  wireReadout(state, stage);
  wireObjects(state, stage);
  wireKeyboard(state, stage, pen);
  onClick("theme", switchTheme);
  window.addEventListener("beforeunload", (event) => {
    if (state.unsaved || state.batch?.unsaved) event.preventDefault();
  });
}

async function start(state) {
  showTheme();
  followSystemTheme();
  takeToken();
  document.body.classList.add("start");
  wire(state);
  await attempt(state, async () => {
    const { models, annotation } = await requestJson("/v1/models");
    state.models = models;
    $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    state.model = $("model").value;
    await listExamples(state).catch(() => undefined); // a page without examples is still a page
    state.changed("list");
    if (annotation) await openFolder(state);
  });
  document.documentElement.dataset.ready = "yes";
}

start(new State());
