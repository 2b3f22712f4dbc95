// Drawn scenes to try.

import { requestFile, requestJson } from "./api.js";
import { $, make } from "./dom.js";
import { attempt, confirmLoss } from "./notices.js";
import { choose } from "./pair.js";

/** The names are there at once, with room for the pictures: nothing moves under a finger later. */
export async function listExamples(state) {
  const examples = await requestJson("/v1/examples");
  const buttonFor = ({ name, title }, properties, ...children) => {
    const button = make("button", { type: "button", ...properties }, ...children);
    button.addEventListener("click", () => openExample(state, name));
    return button;
  };
  for (const example of examples) {
    const card = buttonFor(example, { className: "scene" }, make("span", { textContent: example.title }));
    card.dataset.name = example.name;
    $("cards").append(make("li", {}, card));
  }
  const chips = examples.map((example) => buttonFor(example, { textContent: example.title }));
  $("scenes").hidden = !examples.length;
  $("chips").replaceChildren(make("span", { textContent: "Try" }), ...chips);
  $("chips").hidden = document.body.classList.contains("start");
}

export async function drawExamples() {
  for (const button of document.querySelectorAll("#cards button")) {
    for (const kind of ["thermal", "rgb"]) { // one by one: others may ask in between
      const file = await requestFile(`/v1/examples/${button.dataset.name}/${kind}`, button.dataset.name);
      button.prepend(make("img", { src: URL.createObjectURL(file), alt: "" }));
    }
  }
}

async function openExample(state, name) {
  if (!confirmLoss(state)) return;
  state.leaveFolder();
  await attempt(state, async () => {
    const files = {};
    for (const kind of ["rgb", "thermal"]) files[kind] = await requestFile(`/v1/examples/${name}/${kind}`, `${name}.png`);
    await choose(state, files);
  });
}
