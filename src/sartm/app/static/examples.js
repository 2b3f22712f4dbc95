// Drawn scenes to try; their thumbnails are files, so that nothing waits for them to be drawn.

import { requestFile, requestJson } from "./api.js";
import { $, make } from "./dom.js";
import { attempt, confirmLoss } from "./notices.js";
import { choose } from "./pair.js";

export async function listExamples(state) {
  const examples = await requestJson("/v1/examples");
  const buttonFor = ({ name, title }, properties, ...children) => {
    const button = make("button", { type: "button", ...properties }, ...children);
    button.addEventListener("click", () => openExample(state, name));
    return button;
  };
  for (const example of examples) {
    const picture = make("img", { src: `/example-${example.name}.webp`, alt: "", width: 352, height: 264 });
    const card = buttonFor(example, { className: "scene" }, picture, make("span", { textContent: example.title }));
    $("cards").append(make("li", {}, card));
  }
  const chips = examples.map((example) => buttonFor(example, { textContent: example.title }));
  $("scenes").hidden = !examples.length;
  $("chips").replaceChildren(make("span", { textContent: "Try" }), ...chips);
  $("chips").hidden = document.body.classList.contains("start");
}

async function openExample(state, name) {
  if (!confirmLoss(state)) return;
  state.leaveList();
  await attempt(state, async () => {
    const files = {};
    for (const kind of ["rgb", "thermal"]) files[kind] = await requestFile(`/v1/examples/${name}/${kind}`, `${name}.png`);
    await choose(state, files);
  });
}
