// The list of pairs, of a folder to annotate or of a batch: states, filter, stepping, saving all.

import { closeBatch, keepCorrections, openItem, restartBatch, setPaused, startBatch, zipBatch } from "./batch.js";
import { $, make, onClick } from "./dom.js";
import { download } from "./downloads.js";
import { canWrite, encodeFilm, filmItems } from "./film.js";
import { goBack, goOn, openPair } from "./folder.js";
import { relabel } from "./labelling.js";
import { attempt, confirmLoss } from "./notices.js";

const ANNOTATING = { all: "All", open: "To label", saved: "Saved" };
const LABELLING = { all: "All", done: "Labelled", corrected: "Corrected", waiting: "Waiting", failed: "Failed" };
const SAID = {
  open: "no label", labelled: "has a label", saved: "saved", waiting: "waiting", working: "labelling",
  done: "labelled", corrected: "corrected", failed: "failed",
};

export function wireList(state) {
  state.on("list results inputs", () => drawList(state));
  onClick("previous", () => stepBack(state));
  onClick("next", () => stepOn(state));
  onClick("pause", () => setPaused(state, !state.batch.paused));
  onClick("list-close", () => attempt(state, () => close(state)));
  onClick("get-zip", () => attempt(state, async () => {
    const { title } = state.batch;
    download(await zipBatch(state), `${title}.zip`);
  }));
  onClick("get-film", () => saveFilm(state));
  $("filter").addEventListener("change", () => drawList(state));
  $("search").addEventListener("input", () => drawList(state));
  $("rate").addEventListener("change", () => changeRate(state));
}

export function stepOn(state) {
  if (state.batch) openItem(state, state.itemIndex === null ? 0 : state.itemIndex + 1);
  else goOn(state);
}

export function stepBack(state) {
  if (state.item) openItem(state, state.itemIndex - 1);
  else if (!state.batch) goBack(state);
}

/** Whether corrections of the batch may be given up. */
export function mayLose(state) {
  return !state.batch?.unsaved || window.confirm("What you corrected in these pairs is not saved. Go on without it?");
}

async function close(state) {
  await keepCorrections(state); // of the pair that is shown: they are asked about too
  if (state.batch && mayLose(state)) closeBatch(state);
}

/** Label anew what is there, if the user agrees to lose corrections; `prepare` sets what is new. */
export function labelAgain(state, prepare) {
  if (!(mayLose(state) && confirmLoss(state))) return false;
  prepare();
  state.saved = null;
  if (state.batch) restartBatch(state);
  if (!state.item) relabel(state);
  return true;
}

function rowsOf({ annotation, batch }) {
  if (batch) {
    return batch.items.map((item) => {
      const corrected = item.labels && item.state === "done";
      return { name: item.name, status: corrected ? "corrected" : item.state, error: item.error, thumb: item.thumb };
    });
  }
  return annotation.pairs.map((pair) => {
    const status = pair.saved ? "saved" : pair.labelled ? "labelled" : "open";
    return { name: pair.name, status, error: "", thumb: null };
  });
}

const PASSES = {
  all: () => true,
  open: (status) => status !== "saved",
  waiting: (status) => status === "waiting" || status === "working",
  done: (status) => status === "done" || status === "corrected",
};

function drawList(state) {
  const { annotation, batch } = state;
  $("list").hidden = !(annotation || batch);
  document.body.classList.toggle("listing", Boolean(annotation || batch));
  if (!annotation && !batch) return;
  const rows = rowsOf(state);
  drawFilter(batch ? LABELLING : ANNOTATING);
  const chosen = $("filter").value;
  const passes = PASSES[chosen] ?? ((status) => status === chosen);
  const text = $("search").value.trim().toLowerCase();
  const shown = rows.map((row, index) => ({ ...row, index }))
    .filter(({ name, status }) => passes(status) && name.toLowerCase().includes(text));
  drawRows(state, shown);
  drawWork(state, rows, shown.length);
}

function drawFilter(kinds) {
  const key = Object.keys(kinds).join();
  if ($("filter").dataset.key === key) return;
  $("filter").dataset.key = key;
  $("filter").replaceChildren(...Object.entries(kinds).map(([value, words]) => new Option(words, value)));
  $("search").value = "";
}

/** Rows stay the same elements while they show the same pairs: the focus and the place stay, too. */
function drawRows(state, shown) {
  const list = $("items");
  const key = `${state.batch ? "batch" : "folder"} ${shown.map(({ index }) => index)}`;
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...shown.map(({ index }) => make("li", {}, createRow(state, index))));
  }
  const current = state.batch ? state.itemIndex : state.pairIndex;
  shown.forEach((row, place) => drawRow(list.children[place].firstChild, row, row.index === current));
}

function createRow(state, index) {
  const button = make(
    "button", { type: "button" },
    make("canvas", { width: 96, height: 72, hidden: true }),
    make("span", { className: "label" }),
    make("span", { className: "status" }),
  );
  button.addEventListener("click", () => (state.batch ? openItem(state, index) : openPair(state, index)));
  return button;
}

function drawRow(button, { name, status, error, thumb }, current) {
  const [canvas, label, state] = button.children;
  button.dataset.status = status;
  if (current) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  label.textContent = name;
  button.title = error || name;
  state.textContent = SAID[status];
  if (canvas.picture === thumb) return;
  canvas.picture = thumb;
  canvas.hidden = !thumb;
  if (thumb) canvas.getContext("2d").drawImage(thumb, 0, 0);
}

function drawWork(state, rows, listed) {
  const { annotation, batch } = state;
  const count = (...kinds) => rows.filter(({ status }) => kinds.includes(status)).length;
  const [done, failed] = [count("done", "corrected"), count("failed")];
  $("list-title").textContent = batch?.film ? "Film" : batch ? "Pairs" : annotation.name;
  const total = `${batch ? done : count("saved")} of ${rows.length} ${batch ? "labelled" : "saved"}`;
  const facts = [total, failed && `${failed} failed`, listed < rows.length && `${listed} listed`].filter(Boolean);
  $("list-count").textContent = facts.join(", ");
  const over = !batch || done + failed === rows.length;
  $("work").hidden = over;
  $("list-close").hidden = !batch;
  $("rate-row").hidden = !batch?.film;
  $("batch-saves").hidden = !batch || !done;
  $("get-film").hidden = !batch?.film || !canWrite();
  $("get-film").disabled = $("get-zip").disabled = !over;
  $("leftover").hidden = !batch?.lone;
  $("leftover").textContent = batch?.lone ? `${batch.lone} without a partner of the same name: labelled alone.` : "";
  if (!batch) return;
  $("work-done").max = rows.length;
  $("work-done").value = done + failed;
  $("pause").textContent = batch.paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(batch.paused));
  if (batch.paused) $("get-film").disabled = $("get-zip").disabled = !done; // what is there
}

async function changeRate(state) {
  const { film, title } = state.batch;
  await attempt(state, () => keepCorrections(state));
  if (!mayLose(state)) return;
  const items = filmItems(film, Number($("rate").value));
  state.batch.film = null; // it goes on, and is not closed
  await startBatch(state, { items, title, film });
}

async function saveFilm(state) {
  const { batch } = state;
  const text = $("get-film").lastChild;
  await attempt(state, async () => {
    await keepCorrections(state); // shown in the film, but saved with the ZIP alone
    const items = batch.items.filter((item) => item.frame);
    const show = (count) => (text.textContent = `${count} of ${items.length}`);
    download(await encodeFilm(items, Number($("rate").value), show), `${batch.title}_labelled.webm`);
  });
  text.textContent = "Film";
}
