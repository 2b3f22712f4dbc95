// Light or dark: as chosen here before, else as the system has it.

const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function showTheme() {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
}

export function followSystemTheme() {
  dark.addEventListener("change", showTheme);
}

export function switchTheme() {
  localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  showTheme();
}
