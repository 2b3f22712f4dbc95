// Drawn scenes to try.

import { ask, fetchFile } from "./api.js";
import { $ } from "./dom.js";
import { attempt, mayLeave } from "./notices.js";
import { choose } from "./pair.js";
import { leaveFolder } from "./state.js";

/** The names are there at once, with room for the pictures: nothing moves under a finger later. */
export async function listExamples() {
  const list = await (await ask("/v1/examples")).json();
  const chips = [Object.assign(document.createElement("span"), { textContent: "Try" })];
  for (const one of list) {
    $("cards").append(exampleCard(one));
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: one.title });
    chip.addEventListener("click", () => openExample(one));
    chips.push(chip);
  }
  $("scenes").hidden = !list.length;
  $("chips").replaceChildren(...chips);
  $("chips").hidden = document.body.classList.contains("start");
}

function exampleCard(one) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "scene" });
  button.dataset.name = one.name;
  button.append(Object.assign(document.createElement("span"), { textContent: one.title }));
  button.addEventListener("click", () => openExample(one));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

export async function drawExamples() {
  for (const button of document.querySelectorAll("#cards button")) {
    for (const kind of ["thermal", "rgb"]) { // one by one: others may ask in between
      const file = await fetchFile(`/v1/examples/${button.dataset.name}/${kind}`, button.dataset.name);
      button.prepend(Object.assign(document.createElement("img"), { src: URL.createObjectURL(file), alt: "" }));
    }
  }
}

async function openExample(one) {
  if (!mayLeave()) return;
  leaveFolder();
  await attempt(async () => {
    const chosen = {};
    for (const kind of ["rgb", "thermal"]) {
      chosen[kind] = await fetchFile(`/v1/examples/${one.name}/${kind}`, `${one.name}.png`);
    }
    await choose(chosen);
  });
}
