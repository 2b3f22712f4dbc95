// The page's elements: finding, making and listening to them.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function makeSwatch(colour) {
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = `rgb(${colour})`;
  return swatch;
}

export function onClick(id, act) {
  $(id).addEventListener("click", () => act());
}

export function onRadio(name, act) {
  for (const input of document.getElementsByName(name)) input.addEventListener("change", () => act(input.value));
}

export function checkRadio(name, value) {
  for (const input of document.getElementsByName(name)) input.checked = input.value === value;
}
