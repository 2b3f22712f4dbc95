// Light or dark.

export function theme(name) {
  document.documentElement.dataset.theme = name;
}

export function switchTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(name);
  localStorage.setItem("theme", name);
}
