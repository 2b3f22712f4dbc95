// What the service says, for people at the page: its options and commands have buttons here, or none.

const INSTEAD = [
  [/If both show the same view set resize_thermal; if not, .*$/, "If both show the same view, tick the box beside the pictures; if not, the two cameras have to be registered first."],
  [/the 4th channel has (\d+) distinct values? and is (dropped as transparency|taken as thermal).*$/, "its 4th channel has $1 different values and is $2."],
  [/A model for them: sartm train .*$/, "Choose another model, or give a range of values below the thermal picture."],
  [/predict takes RGB \+ thermal in one file as --rgb alone/, "RGB and thermal in one file go into the RGB slot alone"],
  [/write a number that does not occur in their place.*$/, "write plain numbers in their place"],
  [/choose --modality both/, "let the model see both"],
  [/^(rgb|upload): /i, "RGB: "],
  [/^(thermal|fourth): /i, "Thermal: "],
  [/^the pair: /, ""],
];
// An option, a command, a file of settings, or a field of a request.
const STRANGE = /(^|\W)--[a-z]|\bsartm (train|predict|data|app|video|export|weights)\b|dataset\.toml|\b[a-z]+_(thermal|channel|range)\b/;

/** A message of the service in the words of the page. */
export function inPageWords(text) {
  let words = text;
  for (const [pattern, replacement] of INSTEAD) words = words.replace(pattern, replacement);
  const kept = words.split(/(?<=[;.]) /).filter((part) => !STRANGE.test(part));
  words = kept.join(" ").replace(/[;,:]$/, "");
  return words ? words[0].toUpperCase() + words.slice(1) : "The service cannot use this.";
}
