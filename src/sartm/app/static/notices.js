// What the user is told and asked: messages, the sign of work, what would be lost.

import { Refusal } from "./api.js";
import { $ } from "./dom.js";
import { state } from "./state.js";

export function say(text, good = false) {
  const toast = document.createElement("div");
  toast.className = good ? "toast good" : "toast";
  toast.append(Object.assign(document.createElement("span"), { textContent: text }));
  const close = Object.assign(document.createElement("button"), { textContent: "×", type: "button" });
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => toast.remove());
  toast.append(close);
  $("toasts").replaceChildren(...[...$("toasts").children].slice(-2), toast);
  setTimeout(() => toast.remove(), good ? 2500 : 9000);
}

/** Run something the user asked for; what goes wrong is said, not thrown. */
export async function attempt(work) {
  state.busy++;
  $("busy").hidden = false;
  try {
    return await work();
  } catch (error) {
    say(error instanceof Refusal ? error.message : `This page failed: ${error.message}`);
    if (!(error instanceof Refusal)) console.error(error);
    return undefined;
  } finally {
    if (!--state.busy) $("busy").hidden = true;
  }
}

export function mayLeave() {
  const unsaved = [...state.results.values()].some((one) => one.unsaved);
  return !unsaved || window.confirm("What you corrected is not saved. Go on without it?");
}
