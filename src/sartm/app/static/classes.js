// The words of the classes to look for: chips, a field with suggestions. Without any: all of the model's.

import { requestJson } from "./api.js";
import { $, make } from "./dom.js";
import { labelAgain } from "./list.js";
import { attempt } from "./notices.js";
import { readable } from "./result.js";

let vocabulary = null; // fetched when a model that knows words is first asked for one

const modelOf = (state) => state.models.find(({ name }) => name === state.model);
const namesOf = (model) => model.classes.filter(({ rest }) => !rest).map(({ name }) => readable(name));

function choose(state, words) {
  const chosen = labelAgain(state, () => {
    state.words = [...new Set(words)];
    state.highlighted = null;
  });
  if (chosen) draw(state);
  return chosen;
}

async function suggest(state) {
  const model = modelOf(state);
  if (!model) return;
  if (model.words && !vocabulary) {
    const found = await attempt(state, () => requestJson("/v1/words"));
    if (!found) return;
    vocabulary = found.words;
  }
  const words = [...new Set([...namesOf(model), ...(model.words ? vocabulary : [])])];
  const left = words.filter((word) => !state.words.includes(word));
  $("known-words").replaceChildren(...left.map((word) => new Option(word)));
}

function chipOf(state, word) {
  const chip = make("button", { type: "button", textContent: `${word} ×` });
  chip.setAttribute("aria-label", `Do not look for ${word}`);
  chip.addEventListener("click", () => {
    choose(state, state.words.filter((other) => other !== word));
    $("word").focus();
  });
  return chip;
}

function draw(state) {
  const model = modelOf(state);
  $("words").hidden = Boolean(state.pair) || !model;
  $("word-chips").replaceChildren(...state.words.map((word) => chipOf(state, word)));
  $("all-words").hidden = !state.words.length;
  $("word").placeholder = model?.words ? "Any word" : "A class";
}

export function wireClasses(state) {
  $("word").addEventListener("focus", () => suggest(state));
  $("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = $("word").value.split(",").map((word) => word.trim()).filter(Boolean);
    if (words.length && choose(state, [...state.words, ...words])) $("word").value = "";
  });
  $("word").addEventListener("keydown", ({ key }) => {
    if (key === "Backspace" && !$("word").value && state.words.length) choose(state, state.words.slice(0, -1));
  });
  $("all-words").addEventListener("click", () => choose(state, []));
  $("model").addEventListener("change", () => draw(state));
  state.on("inputs list", () => draw(state));
}
