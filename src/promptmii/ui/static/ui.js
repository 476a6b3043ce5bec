// What HTML and htmx leave to do: the theme, files that are dropped, forms after Back, a server that is gone,
// Ctrl + Enter, and edits measured while typing.
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
  // Back restores fields, not what htmx had loaded for them, and choosing a restored file again would change nothing.
  for (const form of document.querySelectorAll("[data-submits]")) form.reset();
  const columns = [...document.querySelectorAll(".columns input")];
  columns.find((input) => input.checked !== input.defaultChecked)?.dispatchEvent(new Event("change", {bubbles: true}));
});

const notice = document.getElementById("notice");
for (const name of ["sendError", "responseError", "sseError"]) {
  document.addEventListener(`htmx:${name}`, (event) => {
    const status = event.detail.xhr?.status;
    notice.textContent = status && status !== 403
      ? `That did not work (error ${status}). Reload the page.`
      : "promptmii ui does not answer any more. Start it again, and open the address that it prints.";
    notice.hidden = false;
  });
}
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) notice.hidden = true; });
document.addEventListener("htmx:sseOpen", () => { notice.hidden = true; });

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
