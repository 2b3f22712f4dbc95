// Requests to the service, with the token where it wants one.

import { $ } from "./dom.js";
import { inPageWords } from "./words.js";

/** An answer that says what is wrong; its words are for the user. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = sessionStorage.getItem("token") ?? "";

function keepToken(text) {
  token = text;
  sessionStorage.setItem("token", token);
}

/** Take the token out of the page's address, where nobody shall read it. */
export function takeToken() {
  // A plus is one, as in base64: nobody writes a blank so here.
  const found = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get("token");
  if (!found) return;
  keepToken(found);
  history.replaceState(null, "", location.pathname);
}

function askToken() {
  const dialog = $("ask");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => (keepToken($("token").value), resolve()), { once: true });
  });
}

export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refusal(0, "The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askToken();
    return request(path, options);
  }
  const content = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, inPageWords(content.detail ?? `The service answered ${answer.status}.`));
}

/** Try again for a while where too many requests wait. */
export async function requestPatiently(path, options) {
  for (let tries = 0; ; tries++) {
    try {
      return await request(path, options);
    } catch (error) {
      if (error.status !== 429 || tries === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 700 * (tries + 1)));
    }
  }
}

export async function requestJson(path) {
  return (await request(path)).json();
}

export async function requestFile(path, name) {
  const blob = await (await request(path)).blob();
  return new File([blob], name, { type: blob.type });
}

/** Options that post fields as a form; those without value are left out. */
export function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value != null) data.append(name, value);
  return { method: "POST", body: data };
}
