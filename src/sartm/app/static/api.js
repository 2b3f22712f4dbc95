// Requests to the service, with the token where it wants one.

import { $ } from "./dom.js";

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = sessionStorage.getItem("token") ?? "";

export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    token = given;
    sessionStorage.setItem("token", token);
    history.replaceState(null, "", location.pathname);
  }
}

export async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refusal(0, "The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askToken();
    return ask(path, options);
  }
  const content = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, content.detail ?? `The service answered ${answer.status}.`);
}

export async function askPatiently(path, options) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (error.status !== 429 || tries === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 700 * (tries + 1)));
    }
  }
}

function askToken() {
  const dialog = $("ask");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        token = $("token").value;
        sessionStorage.setItem("token", token);
        resolve();
      },
      { once: true },
    );
  });
}

export function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value != null) data.append(name, value);
  return { method: "POST", body: data };
}

export async function fetchFile(path, name) {
  const blob = await (await ask(path)).blob();
  return new File([blob], name, { type: blob.type });
}
