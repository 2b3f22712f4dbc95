// What the user is told and asked: messages, the sign of work, what would be lost.

import { Refusal } from "./api.js";
import { $, make } from "./dom.js";

export function say(text, good = false) {
  const close = make("button", { textContent: "×", type: "button" });
  close.setAttribute("aria-label", "Close this message");
  const toast = make("div", { className: good ? "toast good" : "toast" }, make("span", { textContent: text }), close);
  close.addEventListener("click", () => toast.remove());
  $("toasts").replaceChildren(...[...$("toasts").children].slice(-2), toast);
  setTimeout(() => toast.remove(), good ? 2500 : 9000);
}

/** Run something the user wants done; what goes wrong is said, not thrown. */
export async function attempt(state, work) {
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

/** Whether corrections that are not saved may be given up. */
export function confirmLoss(state) {
  state.finish();
  return !state.unsaved || window.confirm("What you corrected is not saved. Go on without it?");
}
