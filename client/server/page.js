"use strict";
// Texts of the catalogue are set as text, never as HTML.
const by = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function status(text, failed) {
  by("status").textContent = text;
  by("status").className = failed ? "error" : "";
}

async function showFilters() {
  const { attributes } = await (await fetch("/attributes")).json();
  for (const [name, values] of Object.entries(attributes)) {
    const field = element("fieldset", "");
    field.append(element("legend", "", name));
    for (const [value, items] of Object.entries(values)) {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", name, value });
      const label = element("label", "");
      label.append(box, ` ${value} (${items})`);
      field.append(label);
    }
    by("filters").append(field);
  }
}

function chosen() {
  const filters = {};
  for (const box of by("filters").querySelectorAll("input:checked")) (filters[box.name] ??= []).push(box.value);
  return filters;
}

function reasonRow(reason, most) {
  const row = element("div", "reason");
  const bar = element("div", reason.score < 0 ? "bar against" : "bar");
  bar.style.width = `${(100 * Math.abs(reason.score)) / most}%`;
  bar.title = reason.signal;
  row.append(bar, element("span", "", `${reason.sentence} ${reason.score >= 0 ? "+" : ""}${reason.score.toFixed(2)}`));
  return row;
}

function itemRow(item, most) {
  const row = element("li", "");
  row.dataset.item = item.item_id;
  row.append(element("span", "score", item.score.toFixed(2)), element("span", "title", item.title || item.item_id));
  const attributes = Object.entries(item.attributes).map(([name, value]) => `${name}: ${value}`);
  row.append(element("div", "attributes", attributes.join(" · ")));
  row.append(...item.reasons.map((reason) => reasonRow(reason, most)));
  return row;
}

function show(answer, roundTripMs) {
  const scores = answer.items.flatMap((item) => item.reasons.map((reason) => Math.abs(reason.score)));
  const most = Math.max(1e-9, ...scores);
  by("items").replaceChildren(...answer.items.map((item) => itemRow(item, most)));
  const read = answer.corrections.map((one) => ` Read “${one.given}” as “${one.meant}”.`).join("");
  const count = answer.items.length ? `${answer.items.length} items` : "No item passes the filters";
  const unsure = answer.items.length && answer.confident === false ? "Perhaps no good answer. " : "";
  status(`${unsure}${count} in ${roundTripMs.toFixed(0)} ms (server ${answer.latency_ms.toFixed(1)}, of it waiting ` +
    `${answer.queue_ms.toFixed(1)} and computing ${answer.compute_ms.toFixed(1)}), engine ${answer.engine}.${read}`);
}

let asked = 0;

async function recommend(event) {
  event?.preventDefault();
  if (!by("text").value.trim()) return;
  const mine = ++asked;
  const started = performance.now();
  try {
    const response = await fetch("/recommend", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: by("text").value, filters: chosen() }),
    });
    const answer = await response.json();
    if (mine !== asked) return; // a later wish is under way
    if (!response.ok) throw new Error(answer.error);
    show(answer, performance.now() - started);
  } catch (error) {
    if (mine === asked) status(`No answer: ${error.message}`, true);
  }
}

by("form").addEventListener("submit", recommend);
by("filters").addEventListener("change", recommend);
showFilters().catch((error) => status(`No filters: ${error.message}`, true));
