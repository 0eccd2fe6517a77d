"use strict";
// Shows /openapi.json; all of it is written with textContent.
const make = (tag, options = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), options);
  element.append(...inside);
  return element;
};
const table = (heads, rows) => make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", textContent: text })))),
  make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))))));
const code = (text) => make("code", { textContent: text });
/** A text in which backticks set code. */
const marked = (text) => make("span", {}, ...text.split("`").map((part, at) => (at % 2 ? code(part) : part)));
const typeOf = (schema = {}) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((each) => each !== "null").join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "any";
};
const limits = (schema = {}) => {
  const found = [];
  if (schema.default !== undefined) found.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.minimum !== undefined || schema.maximum !== undefined) found.push(`${schema.minimum ?? "…"} to ${schema.maximum ?? "…"}`);
  if (schema.maxLength !== undefined) found.push(`at most ${schema.maxLength} characters`);
  return found.join(", ");
};
const section = (path, verb, route) => {
  const found = [make("h2", {}, make("span", { className: "verb", textContent: verb.toUpperCase() }), code(path)), make("p", {}, marked(route.description ?? route.summary ?? ""))];
  if (route.parameters?.length) {
    found.push(table(["parameter", "type", "meaning"], route.parameters.map((each) => [code(each.name), typeOf(each.schema),
      make("span", {}, marked(each.schema.description ?? each.description ?? ""), make("span", { className: "faint", textContent: ` ${limits(each.schema)}` }))])));
  }
  if (route.requestBody) found.push(make("p", { className: "faint", textContent: `Body: ${Object.keys(route.requestBody.content).join(", ")}` }));
  const answers = Object.entries(route.responses ?? {}).map(([status, answer]) => [code(status), marked(answer.description ?? ""), typeOf(answer.content?.["application/json"]?.schema)]);
  found.push(table(["status", "", "gives"], answers));
  return make("section", { className: "route" }, ...found);
};
const schemaOf = (name, schema) => make("section", { className: "route", id: name }, make("h2", {}, code(name)), make("p", { textContent: schema.description ?? "" }),
  table(["field", "type", "meaning"], Object.entries(schema.properties ?? {}).map(([field, each]) => [code(field), typeOf(each), marked(each.description ?? "")])));

const here = location.origin;
document.getElementById("examples").textContent = [
  `curl -F images=@one.png -F images=@two.jpg '${here}/predict?top_k=3'`,
  `curl -H 'Content-Type: application/json' -d '{"images": ["<base64>"]}' ${here}/predict`,
  `curl -H 'Content-Type: image/png' --data-binary @one.png '${here}/embed?format=npy' -o one.npy`,
].join("\n");
fetch("/openapi.json").then((answer) => answer.json()).then((described) => {
  const routes = Object.entries(described.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, route]) => section(path, verb, route)));
  const schemas = Object.entries(described.components?.schemas ?? {}).filter(([name]) => !name.includes("ValidationError"));
  document.getElementById("routes").replaceChildren(...routes, make("h1", { textContent: "What it gives" }), ...schemas.map((each) => schemaOf(...each)));
}).catch(() => document.getElementById("routes").replaceChildren(make("p", { className: "note bad", textContent: "The app does not answer. Is it still running?" })));
