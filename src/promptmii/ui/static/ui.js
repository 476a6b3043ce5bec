// What HTML and htmx leave to do: the theme, files that are dropped, Ctrl + Enter, and edits measured while typing.
"use strict";

document.addEventListener("click", (event) => {
  if (!event.target.closest("#theme")) return;
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("promptmii-theme", root.dataset.theme);
});

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.matches("[data-submits] input[type=file]") && input.files.length) input.form.requestSubmit();
});

for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => event.target.closest?.(".drop")?.classList.toggle("over", over));
}

document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button:not([hx-get])")) {
    if (!event.target.matches("[hx-post]")) setTimeout(() => { button.disabled = true; });
  }
});

addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("[data-ctrl-enter]")) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
});

let pause;
document.addEventListener("input", (event) => {
  if (event.target.id !== "instruction" || !document.getElementById("typing").checked) return;
  clearTimeout(pause);
  pause = setTimeout(() => event.target.form.requestSubmit(), 700);
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id !== "rows") return;
  for (const cell of document.querySelectorAll(".confusion [aria-current]")) cell.removeAttribute("aria-current");
  const source = event.detail.requestConfig.elt;
  if (source.closest(".confusion")) source.setAttribute("aria-current", "true");
});
