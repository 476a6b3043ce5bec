// ---------------------------------------------------------------- details of a task, unpacked when they are needed

const unpacked = new Map();

function details(task) {
  if (!unpacked.has(task)) unpacked.set(task, unpack(byId(`task-${task}`).textContent));
  return unpacked.get(task);
}

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.trim()), (character) => character.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(plain).text());
}

// ---------------------------------------------------------------- every task

const tasks = { scope: 0, n: data.n, search: "" };

function prepareTasks() {
  const search = h("input", { type: "search", placeholder: "part of a task's name", autocomplete: "off" });
  search.addEventListener("input", () => {
    tasks.search = search.value.trim().toLowerCase();
    filterTasks();
  });
  byId("task-controls").append(
    h("label", {}, "Search ", search),
    choice("Follower", [...data.scopes.entries()], 0, (scope) => drawTasks({ scope })),
    choice("Examples", data.ns.map((n) => [n, `n = ${n}`]), data.n, (n) => drawTasks({ n })),
  );
  drawTasks({ scope: 0 });
}

function drawTasks(change) {
  Object.assign(tasks, change);
  const table = byId("task-table");
  const series = seriesInScope();
  if ("scope" in change) {
    const names = [["Task", ""], ["Labels", "number"], ["Rows", "number"], ...series.map((one) => [one.name, "number"])];
    const heads = names.map(([name, kind], i) =>
      h("th", { scope: "col", class: kind || null, "data-series": i > 2 ? name : null }, h("button", { type: "button" }, name)));
    heads[0].setAttribute("aria-sort", "ascending");
    table.tHead.replaceChildren(h("tr", {}, ...heads));
  }
  table.tBodies[0].replaceChildren(...data.tasks.map((task, i) => taskRow(task, i, series)));
  sortTable(table);
  filterTasks();
}

const seriesInScope = () => data.series.filter((one, i) => data.scores[tasks.scope][i]);
const cellsOf = (series) => data.scores[tasks.scope][data.series.indexOf(series)][data.ns.indexOf(tasks.n)];

function taskRow(task, index, series) {
  const values = series.map((one) => cellsOf(one)[index]);
  const best = Math.max(...values.map((value) => value[0] ?? -1));
  const open = h("button", { type: "button", "aria-expanded": "false", class: "open" }, task.name);
  open.addEventListener("click", () => toggleTask(open, index));
  return h("tr", { "data-task": index, "data-name": task.name.toLowerCase() },
    h("th", { scope: "row" }, open),
    ...[task.labels, task.rows].map((count) => h("td", { class: "number" }, whole(count))),
    ...values.map(([value, failed], i) => {
      const text = value === null ? (failed ? "failed" : NOTHING) : score(value) + (failed ? " †" : "");
      return h("td", { class: value === best ? "number best" : "number", "data-series": series[i].name }, text);
    }));
}

function filterTasks() {
  closeTasks();
  const table = byId("task-table");
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !row.dataset.name.includes(tasks.search);
  const shown = rows.filter((row) => !row.hidden);
  byId("task-count").textContent = `${whole(shown.length)} of ${plural(rows.length, "task")} shown.`;
  const means = seriesInScope().map((one) => {
    const values = shown.map((row) => cellsOf(one)[row.dataset.task][0]).filter((value) => value !== null);
    return h("td", { class: "number", "data-series": one.name }, score(mean(values)));
  });
  table.tFoot.replaceChildren(h("tr", {}, h("th", { scope: "row", colspan: 3 }, "Mean of the tasks shown"), ...means));
  showMethods();
}

function closeTasks() {
  for (const row of document.querySelectorAll("#task-table tr.opened")) row.remove();
  for (const button of document.querySelectorAll("#task-table .open[aria-expanded=true]")) button.setAttribute("aria-expanded", "false");
}

async function toggleTask(button, index) {
  const row = button.closest("tr");
  const opened = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!opened));
  if (opened) return row.nextElementSibling.remove();
  const box = h("div", { class: "task" }, "Unpacking …");
  row.after(h("tr", { class: "opened" }, h("td", { colspan: row.cells.length }, box)));
  const found = await details(index);
  box.replaceChildren(taskView(data.tasks[index], found));
}

// ---------------------------------------------------------------- one task: a grid of its cells, and the one that is chosen

function taskView(task, found) {
  const here = { scope: tasks.scope, series: -1, n: tasks.n, seed: 0 };
  const grid = h("div", { class: "scroll" });
  const view = h("div", { class: "cell" });
  const controls = h("div", { class: "controls" });
  const inScope = () => found.cells.filter((cell) => cell.scope === here.scope);

  function pick(series, n) {
    const own = inScope().filter((cell) => cell.series === series && cell.n === n);
    const cell = own.find((one) => one.seed === here.seed) ?? own[0];
    if (!cell) return;
    Object.assign(here, { series, n, seed: cell.seed });
    for (const button of grid.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === `${series} ${n}`));
    const focused = [...controls.querySelectorAll("select")].indexOf(document.activeElement);
    const seeds = own.map((one) => [one.seed, String(one.seed)]);
    controls.replaceChildren(
      choice("Follower", [...data.scopes.entries()], here.scope, (scope) => { here.scope = scope; draw(); }),
      choice("Seed", seeds, here.seed, (seed) => { here.seed = seed; pick(here.series, here.n); }),
    );
    controls.querySelectorAll("select")[focused]?.focus();
    view.replaceChildren(...cellView(cell, found));
  }

  function draw() {
    const cells = inScope();
    const ns = distinct(cells.map((cell) => cell.n)).sort((a, b) => a - b);
    const known = distinct(cells.map((cell) => cell.series)).sort((a, b) => a - b);
    grid.replaceChildren(pickTable(cells, known, ns, pick));
    const series = [here.series, known.find((i) => data.series[i].method === "mii"), known.at(-1)].find((i) => known.includes(i));
    const own = cells.filter((cell) => cell.series === series);
    pick(series, (own.find((cell) => cell.n === here.n) ?? own[0]).n);
  }

  if (found.cells.length) draw();
  const labels = found.labels[0] ?? [];
  const intro = `${plural(labels.length, "label")}: ${labels.slice(0, 40).join(", ")}${labels.length > 40 ? ", …" : ""}.`;
  return h("div", {}, h("h3", {}, task.name), h("p", { class: "note" }, intro), grid, controls, view);
}

function pickTable(cells, known, ns, pick) {
  const head = h("tr", {}, h("th", { scope: "col" }, "Macro-F1, mean over seeds"),
    ...ns.map((n) => h("th", { scope: "col", class: "number" }, n ? `n=${n}` : "no examples")));
  const rows = known.map((series) => h("tr", {}, h("th", { scope: "row" }, data.series[series].name),
    ...ns.map((n) => {
      const own = cells.filter((cell) => cell.series === series && cell.n === n);
      if (!own.length) return h("td", { class: "number" });
      const value = mean(own.filter((cell) => !cell.error).map((cell) => cell.macro_f1));
      const text = value === null ? "failed" : score(value);
      const name = `${data.series[series].name}, ${n ? `n=${n}` : "no examples"}: ${text}`;
      const button = h("button", { type: "button", class: "pick", value: `${series} ${n}`, "aria-label": name }, text);
      button.addEventListener("click", () => pick(series, n));
      return h("td", { class: "number" }, button);
    })));
  return h("table", { class: "picks" }, h("thead", {}, head), h("tbody", {}, ...rows));
}

function cellName(cell) {
  const drawn = cell.n ? `, n=${cell.n}, seed ${cell.seed}` : "";
  return data.series[cell.series].name + drawn;
}

function cellView(cell, found) {
  const title = h("h4", {}, cellName(cell));
  if (cell.error) return [title, h("p", { class: "problem" }, `This cell failed: ${cell.error}`)];
  const labels = found.labels[cell.labels];
  const short = cell.n && cell.fitted < cell.n ? [["Examples that fitted", whole(cell.fitted)]] : [];
  const pairs = [
    ["Macro-F1", `${score(cell.macro_f1)} [${score(cell.low)}, ${score(cell.high)}]`], ["Without calibration", score(cell.uncalibrated_macro_f1)],
    ["Accuracy", score(cell.accuracy)],
    ["Prompt tokens per query", whole(cell.tokens)], ["Calls to make it", whole(cell.calls)], ["Tokens to make it", whole(cell.made_tokens)],
    ["Rows", whole(cell.rows)], ["Unparsed", whole(cell.n_unparsed)], ["Truncated", whole(cell.n_truncated)], ...short,
  ];
  const notes = cell.notes.map((note) => h("p", { class: "note" }, note));
  return [title, facts(pairs), h("h5", {}, "Instruction"), ...instruction(cell, found), ...notes,
    h("h5", {}, "Confusion matrix"), confusion(cell, labels), h("h5", {}, "Wrong rows"), wrongRows(cell, found, labels)];
}

function instruction(cell, found) {
  const [text, length] = found.instructions[cell.instruction];
  if (!text) return [h("p", { class: "note" }, "None: the follower reads the list of labels alone.")];
  const cut = length > text.length ? [h("p", { class: "note" }, `The first ${whole(text.length)} of ${whole(length)} characters.`)] : [];
  return [h("pre", { class: "instruction" }, text), ...cut];
}

function confusion(cell, labels) {
  const entries = [];
  for (let i = 0; i < cell.confusion.length; i += 3) entries.push(cell.confusion.slice(i, i + 3));
  const name = (code) => labels[code] ?? "no label";
  if (labels.length > MATRIX) {
    const mixed = entries.filter(([gold, said]) => gold !== said).sort((a, b) => b[2] - a[2]);
    const rows = mixed.slice(0, CONFUSIONS).map(([gold, said, count]) =>
      h("tr", {}, h("th", { scope: "row" }, name(gold)), h("td", {}, name(said)), h("td", { class: "number" }, whole(count))));
    const head = ["True label", "Predicted", "Rows"].map((text, i) => h("th", { scope: "col", class: i > 1 ? "number" : null }, text));
    const caption = `${labels.length} labels: the most frequent confusions`;
    return scroller(caption, h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
  }
  const columns = labels.length + (cell.n_unparsed ? 1 : 0);
  const counts = labels.map(() => Array(labels.length + 1).fill(0));
  for (const [gold, said, count] of entries) counts[gold][said] = count;
  const head = h("tr", {}, h("th", { scope: "col" }, "True ↓  Predicted →"),
    ...Array.from({ length: columns }, (_, i) => h("th", { scope: "col", class: "number" }, name(i))));
  const rows = counts.map((row, gold) => {
    const total = row.reduce((a, b) => a + b, 0) || 1;
    const cells = row.slice(0, columns).map((count, said) =>
      h("td", { class: gold === said ? "number right" : "number missed", style: `--share: ${(count / total).toFixed(3)}` }, count ? whole(count) : "·"));
    return h("tr", {}, h("th", { scope: "row" }, name(gold)), ...cells);
  });
  return scroller("Confusion matrix", h("table", { class: "confusion" }, h("thead", {}, head), h("tbody", {}, ...rows)));
}

function wrongRows(cell, found, labels) {
  if (!cell.n_wrong) return h("p", { class: "note" }, "None.");
  const rows = cell.wrong.map(([text, said, answer]) => {
    const predicted = labels[said] ?? (answer === undefined ? "no label" : `no label: “${answer}”`);
    return h("tr", {}, h("td", { class: "text" }, found.texts[text][0]), h("td", {}, found.texts[text][1]), h("td", {}, predicted));
  });
  const head = ["Text", "True label", "Predicted"].map((name) => h("th", { scope: "col" }, name));
  const which = cell.n_wrong > rows.length ? `The first ${rows.length} of ${plural(cell.n_wrong, "wrong row")}` : plural(cell.n_wrong, "wrong row");
  const table = h("table", { class: "wrong" }, h("caption", {}, `${which}.`), h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  return scroller("Wrong rows", table);
}

// ---------------------------------------------------------------- generator outcome: two instructions side by side

function prepareOutcome() {
  const first = (series) => data.series.findIndex((one) => one.name === data.series[series].name);
  const here = { ...data.outcome, left: first(data.outcome.left), right: first(data.outcome.right), n: data.n, seed: data.seeds[0] };
  const box = byId("outcome-box");
  const redraw = (change) => { Object.assign(here, change); drawOutcome(box, here); };
  const named = data.series.map((one, i) => [i, one.name]).filter(([i]) => first(i) === i);
  byId("outcome-controls").append(
    choice("Task", data.tasks.map((task, i) => [i, task.name]), here.task, (task) => redraw({ task })),
    choice("Follower", [...data.scopes.entries()], here.scope, (scope) => redraw({ scope })),
    choice("Examples", data.ns.map((n) => [n, `n = ${n}`]), data.n, (n) => redraw({ n })),
    choice("Seed", data.seeds.map((seed) => [seed, String(seed)]), here.seed, (seed) => redraw({ seed })),
    choice("Left", named, here.left, (left) => redraw({ left })),
    choice("Right", named, here.right, (right) => redraw({ right })),
  );
  redraw({});
}

// A follower may have a method by another generator than the others have, under the same name.
function inScopeOf(scope, chosen) {
  const series = data.series.findIndex((one, i) => one.name === data.series[chosen].name && data.scores[scope][i]);
  return series < 0 ? chosen : series;
}

async function drawOutcome(box, here) {
  const { task } = here;
  const found = await details(task);
  if (task !== here.task) return; // another was chosen meanwhile
  box.replaceChildren(...[here.left, here.right].map((chosen) => {
    const series = inScopeOf(here.scope, chosen);
    const cell = found.cells.find((one) =>
      one.scope === here.scope && one.series === series && (one.n === 0 || (one.n === here.n && one.seed === here.seed)));
    const { name, method, generator } = data.series[series];
    const role = { zero: ", untrained", mii: ", under test" }[method] ?? "";
    const title = h("h3", {}, name, generator ? h("span", { class: "role" }, ` written by ${generator}${role}`) : "");
    if (!cell) return h("article", {}, title, h("p", { class: "note" }, "This was not run."));
    if (cell.error) return h("article", {}, title, h("p", { class: "problem" }, `This cell failed: ${cell.error}`));
    const numbers = [["Macro-F1", `${score(cell.macro_f1)} [${score(cell.low)}, ${score(cell.high)}]`], ["Prompt tokens per query", whole(cell.tokens)]];
    return h("article", {}, title, facts(numbers), ...instruction(cell, found));
  }));
}

document.addEventListener("pointerover", point);
document.addEventListener("pointermove", point);
document.addEventListener("click", sortOnClick);
preparePanels();
if (byId("legend")) prepareLegend();
if (byId("task-table")) prepareTasks();
if (byId("outcome-box")) prepareOutcome();
