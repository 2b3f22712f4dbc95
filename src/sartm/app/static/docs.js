// The API in words, written from /openapi.json.

import { showTheme } from "./theme.js";

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

function typeOf(schema, parts) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.filter(({ type }) => type !== "null").map((part) => typeOf(part, parts)).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.format === "binary" || schema.contentMediaType) return "file";
  if (schema.type === "array") return `list of ${typeOf(schema.items, parts) || "values"}`;
  return schema.type ?? "";
}

function table(rows) {
  const list = make("dl");
  for (const [name, kind, words] of rows) {
    const term = make("dt");
    term.append(make("code", name));
    const meaning = make("dd");
    meaning.append(make("i", kind), words ? `  ${words}` : "");
    list.append(term, meaning);
  }
  return list;
}

function fieldsOf(schema, parts) {
  const found = schema?.$ref ? parts[typeOf(schema)] : schema;
  return Object.entries(found?.properties ?? {}).map(([name, field]) => {
    const standard = ["", "null", "undefined"].includes(String(field.default)) ? "" : `default ${field.default}`;
    const required = found.required?.includes(name) ? "needed" : standard;
    return [name, typeOf(field, parts), [required, field.description].filter(Boolean).join(". ")];
  });
}

function section(method, path, operation, parts) {
  const card = make("section", "", "card");
  const title = make("h2");
  title.append(make("b", method.toUpperCase(), "verb"), make("code", path));
  card.append(title, make("p", operation.description ?? operation.summary));
  for (const [kind, body] of Object.entries(operation.requestBody?.content ?? {})) {
    card.append(make("h3", `Body: ${kind}`), table(fieldsOf(body.schema, parts)));
  }
  const { 200: good, ...problems } = operation.responses;
  const kinds = Object.entries(good.content ?? {}).map(([kind, { schema }]) => {
    const name = typeOf(schema, parts);
    return [kind, name === "string" ? "" : name, ""];
  });
  card.append(make("h3", "Answer"), table(kinds));
  if (kinds.some(([kind]) => kind === "application/json")) {
    const schema = good.content["application/json"].schema;
    card.append(table(fieldsOf(schema.items ?? schema, parts)));
  }
  card.append(make("p", `Problems: ${Object.keys(problems).join(", ")}`, "note"));
  return card;
}

const text = document.getElementById("text");
showTheme();
const schema = await (await fetch("/openapi.json")).json();
const intro = make("p", `${schema.info.description} With a token: the header Authorization: Bearer TOKEN.`);
const example = Object.assign(make("pre", `curl -F rgb=@rgb.png -F thermal=@thermal.png ${location.origin}/v1/segment -o labels.png\ncurl -F rgb=@rgb.png -F output=json ${location.origin}/v1/segment`), { tabIndex: 0 });
const reasons = {};
for (const operations of Object.values(schema.paths)) {
  for (const operation of Object.values(operations)) {
    for (const [code, { description }] of Object.entries(operation.responses)) if (code !== "200") reasons[code] = description;
  }
}
const problems = make("section", "", "card");
problems.append(make("h2", "Problems"), table(Object.entries(reasons).map(([code, words]) => [code, "", words])));
text.replaceChildren(make("h1", "REST API"), intro, example);
for (const [path, operations] of Object.entries(schema.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    text.append(section(method, path, operation, schema.components.schemas));
  }
}
text.append(problems);
