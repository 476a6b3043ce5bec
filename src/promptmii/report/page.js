// Tooltips, the choice of methods, and sortable tables. tasks.js follows in the same script.
// Text from tasks and models is inserted as text nodes only, and never used in a selector.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const NOTHING = "–";
const MATRIX = 30; // labels of a full confusion matrix; with more, the most frequent confusions are listed
const CONFUSIONS = 40;

// ---------------------------------------------------------------- building blocks

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const byId = (id) => document.getElementById(id);
const score = (value) => (value === null || value === undefined ? NOTHING : value.toFixed(3));
const whole = (value) => (value === null ? "unknown" : Math.round(value).toLocaleString("en"));
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const distinct = (values) => [...new Set(values)];
const given = (n) => (n ? `n=${n}` : "no examples");
const withInterval = (cell) => `${score(cell.macro_f1)} [${score(cell.low)}, ${score(cell.high)}]`;
const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

function choice(label, options, value, change) {
  const control = h("select", {}, ...options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)));
  control.addEventListener("change", () => change(Number(control.value)));
  return h("label", { hidden: options.length < 2 }, `${label} `, control);
}

function facts(pairs) {
  const items = pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  return h("dl", { class: "facts" }, ...items);
}

const heading = (text, number = false) => h("th", { scope: "col", class: number ? "number" : null }, text);

function tableOf(name, heads, rows, caption = "") {
  const title = caption ? [h("caption", {}, caption)] : [];
  return h("table", { class: name }, ...title, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
}

function scroller(label, content) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, content);
}

// ---------------------------------------------------------------- methods shown

function showMethods() {
  const hidden = new Set([...document.querySelectorAll("#legend input:not(:checked)")].map((box) => box.value));
  for (const node of document.querySelectorAll("[data-series]")) node.classList.toggle("off", hidden.has(node.dataset.series));
}

function prepareLegend() {
  const legend = byId("legend");
  legend.addEventListener("change", showMethods);
  legend.addEventListener("submit", (event) => event.preventDefault());
  for (const button of legend.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const box of legend.querySelectorAll("input")) box.checked = button.value === "all";
      showMethods();
    });
  }
  showMethods(); // the browser may keep the boxes of a reloaded page
}

// ---------------------------------------------------------------- values under the pointer

let pointed = null;

function point(event) {
  const spot = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  const tip = byId("tip");
  tip.hidden = !spot;
  if (spot !== pointed) {
    for (const node of document.querySelectorAll(".dim")) node.classList.remove("dim");
    if (spot) emphasise(spot);
    pointed = spot;
  }
  if (!spot) return;
  tip.textContent = spot.dataset.tip;
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = event.clientY - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
}

function emphasise(spot) {
  const kind = "series" in spot.dataset ? "series" : "run";
  for (const node of spot.closest("svg").querySelectorAll(`[data-${kind}]`)) {
    node.classList.toggle("dim", node.dataset[kind] !== spot.dataset[kind]);
  }
}

// ---------------------------------------------------------------- sortable tables

function sortKey(row, column, numeric) {
  const text = row.cells[column].textContent.trim();
  if (!numeric) return text.toLowerCase();
  const match = /^[<+]?(-|−)?([\d,.]+)/.exec(text);
  return match ? Number(match[2].replaceAll(",", "")) * (match[1] ? -1 : 1) : null;
}

function sortTable(table) {
  const header = table.querySelector("th[aria-sort]");
  if (!header) return;
  const numeric = header.classList.contains("number");
  const direction = header.getAttribute("aria-sort") === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => [sortKey(row, header.cellIndex, numeric), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // missing values come last in both directions
    return direction * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function sortOnClick(event) {
  const header = event.target.closest("table[data-sortable] thead th");
  if (!header || !event.target.closest("button")) return;
  const first = header.classList.contains("number") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const next = header.getAttribute("aria-sort") === first ? other : first;
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", next);
  const table = header.closest("table");
  if (table.id === "task-table") closeTasks();
  sortTable(table);
}

// ---------------------------------------------------------------- tables of one n at a time

function preparePanels() {
  for (const control of document.querySelectorAll("select[data-panels]")) {
    const show = () => {
      for (const panel of document.querySelectorAll("[data-panel]")) {
        if (panel.dataset.panel === control.dataset.panels) panel.hidden = panel.dataset.n !== control.value;
      }
    };
    control.addEventListener("change", show);
    show();
  }
}
