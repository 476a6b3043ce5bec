// ---------------------------------------------------------------- details of a task, unpacked on demand

const detailsByTask = new Map();

function loadDetails(task) {
  if (!detailsByTask.has(task)) detailsByTask.set(task, unpack(byId(`task-${task}`).textContent));
  return detailsByTask.get(task);
}

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
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
    const names = [["Task", ""], ["Labels", "number"], ["Rows", "number"], ...series.map(({ name }) => [name, "number"])];
    const heads = names.map(([name, kind], i) =>
      h("th", { scope: "col", class: kind || null, "data-series": i > 2 ? name : null }, h("button", { type: "button" }, name)));
    heads[0].setAttribute("aria-sort", "ascending");
    table.tHead.replaceChildren(h("tr", {}, ...heads));
  }
  table.tBodies[0].replaceChildren(...data.tasks.map((task, i) => taskRow(task, i, series)));
  sortTable(table);
  filterTasks();
}

const seriesInScope = () => data.series.filter((_, i) => data.scores[tasks.scope][i]);
const cellsOf = (series) => data.scores[tasks.scope][data.series.indexOf(series)][data.ns.indexOf(tasks.n)];

function taskRow(task, index, series) {
  const values = series.map((column) => cellsOf(column)[index]);
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
  const means = seriesInScope().map((series) => {
    const values = shown.map((row) => cellsOf(series)[row.dataset.task][0]).filter((value) => value !== null);
    return h("td", { class: "number", "data-series": series.name }, score(mean(values)));
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
  box.replaceChildren(taskView(data.tasks[index], await loadDetails(index)));
}

// ---------------------------------------------------------------- one task: a grid of its cells, and the chosen cell

function taskView(task, details) {
  const scopes = [...data.scopes.entries()].filter(([scope]) => details.cells.some((cell) => cell.scope === scope));
  const [scope] = scopes.find(([number]) => number === tasks.scope) ?? scopes[0] ?? [tasks.scope];
  const state = { scope, series: -1, n: tasks.n, seed: 0 };
  const grid = h("div", { class: "scroll" });
  const view = h("div", { class: "cell" });
  const controls = h("div", { class: "controls" });
  const inScope = () => details.cells.filter((cell) => cell.scope === state.scope);

  function pick(series, n) {
    const cells = inScope().filter((cell) => cell.series === series && cell.n === n);
    const cell = cells.find(({ seed }) => seed === state.seed) ?? cells[0];
    if (!cell) return;
    Object.assign(state, { series, n, seed: cell.seed });
    for (const button of grid.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === `${series} ${n}`));
    const focused = [...controls.querySelectorAll("select")].indexOf(document.activeElement);
    const seeds = cells.map(({ seed }) => [seed, String(seed)]);
    controls.replaceChildren(
      choice("Follower", scopes, state.scope, (scope) => { state.scope = scope; draw(); }),
      choice("Seed", seeds, state.seed, (seed) => { state.seed = seed; pick(state.series, state.n); }),
    );
    controls.querySelectorAll("select")[focused]?.focus();
    view.replaceChildren(...cellView(cell, details));
  }

  function draw() {
    const cells = inScope();
    const ns = distinct(cells.map((cell) => cell.n)).sort((a, b) => a - b);
    const seriesNumbers = distinct(cells.map((cell) => cell.series)).sort((a, b) => a - b);
    grid.replaceChildren(pickTable(cells, seriesNumbers, ns, pick));
    const preferred = [state.series, seriesNumbers.find((i) => data.series[i].method === "mii"), seriesNumbers.at(-1)];
    const series = preferred.find((i) => seriesNumbers.includes(i));
    const inSeries = cells.filter((cell) => cell.series === series);
    pick(series, (inSeries.find((cell) => cell.n === state.n) ?? inSeries[0]).n);
  }

  if (details.cells.length) draw();
  const labels = details.labels[0] ?? [];
  const intro = `${plural(labels.length, "label")}: ${labels.slice(0, 40).join(", ")}${labels.length > 40 ? ", …" : ""}.`;
  const other = `Not run with ${data.scopes[tasks.scope]}. Run with: ${scopes.map(([, title]) => title).join("; ")}.`;
  const notes = scope === tasks.scope ? [intro] : [intro, other];
  return h("div", {}, h("h3", {}, task.name), ...notes.map((note) => h("p", { class: "note" }, note)), grid, controls, view);
}

function pickTable(cells, seriesNumbers, ns, pick) {
  const heads = [heading("Macro-F1, mean over seeds"), ...ns.map((n) => heading(given(n), true))];
  const rows = seriesNumbers.map((series) => h("tr", {}, h("th", { scope: "row" }, data.series[series].name),
    ...ns.map((n) => {
      const ofSeeds = cells.filter((cell) => cell.series === series && cell.n === n);
      if (!ofSeeds.length) return h("td", { class: "number" });
      const value = mean(ofSeeds.filter((cell) => !cell.error).map((cell) => cell.macro_f1));
      const text = value === null ? "failed" : score(value);
      const name = `${data.series[series].name}, ${given(n)}: ${text}`;
      const button = h("button", { type: "button", class: "pick", value: `${series} ${n}`, "aria-label": name }, text);
      button.addEventListener("click", () => pick(series, n));
      return h("td", { class: "number" }, button);
    })));
  return tableOf("picks", heads, rows);
}

function cellName(cell) {
  const drawn = cell.n ? `, n=${cell.n}, seed ${cell.seed}` : "";
  return data.series[cell.series].name + drawn;
}

function cellView(cell, details) {
  const title = h("h4", {}, cellName(cell));
  if (cell.error) return [title, h("p", { class: "problem" }, `This cell failed: ${cell.error}`)];
  const labels = details.labels[cell.labels];
  const short = cell.n && cell.fitted < cell.n ? [["Examples that fitted", whole(cell.fitted)]] : [];
  const pairs = [
    ["Macro-F1", withInterval(cell)], ["Without calibration", score(cell.uncalibrated_macro_f1)],
    ["Accuracy", score(cell.accuracy)],
    ["Prompt tokens per query", whole(cell.tokens)], ["Calls to make it", whole(cell.calls)], ["Tokens to make it", whole(cell.made_tokens)],
    ["Rows", whole(cell.rows)], ["Unparsed", whole(cell.n_unparsed)], ["Truncated", whole(cell.n_truncated)], ...short,
  ];
  const notes = cell.notes.map((note) => h("p", { class: "note" }, note));
  return [title, facts(pairs), h("h5", {}, "Instruction"), ...instruction(cell, details), ...notes,
    h("h5", {}, "Confusion matrix"), confusion(cell, labels), h("h5", {}, "Wrong rows"), wrongRows(cell, details, labels)];
}

function instruction(cell, details) {
  const [text, length] = details.instructions[cell.instruction];
  if (!text) return [h("p", { class: "note" }, "None: the follower reads the list of labels alone.")];
  const cut = length > text.length ? [h("p", { class: "note" }, `The first ${whole(text.length)} of ${whole(length)} characters.`)] : [];
  return [h("pre", { class: "instruction" }, text), ...cut];
}

function confusion(cell, labels) {
  const entries = [];
  for (let i = 0; i < cell.confusion.length; i += 3) entries.push(cell.confusion.slice(i, i + 3));
  const name = (code) => labels[code] ?? "no label";
  if (labels.length > MATRIX) {
    const mixed = entries.filter(([gold, predicted]) => gold !== predicted).sort((a, b) => b[2] - a[2]);
    const rows = mixed.slice(0, CONFUSIONS).map(([gold, predicted, count]) =>
      h("tr", {}, h("th", { scope: "row" }, name(gold)), h("td", {}, name(predicted)), h("td", { class: "number" }, whole(count))));
    const heads = ["True label", "Predicted", "Rows"].map((text, i) => heading(text, i > 1));
    const caption = `${labels.length} labels: the most frequent confusions`;
    return scroller(caption, tableOf(null, heads, rows, caption));
  }
  const columns = labels.length + (cell.n_unparsed ? 1 : 0);
  const counts = labels.map(() => Array(labels.length + 1).fill(0));
  for (const [gold, predicted, count] of entries) counts[gold][predicted] = count;
  const heads = [heading("True ↓  Predicted →"), ...Array.from({ length: columns }, (_, i) => heading(name(i), true))];
  const rows = counts.map((row, gold) => {
    const total = row.reduce((a, b) => a + b, 0) || 1;
    const cells = row.slice(0, columns).map((count, predicted) =>
      h("td", { class: gold === predicted ? "number right" : "number missed", style: `--share: ${(count / total).toFixed(3)}` }, count ? whole(count) : "·"));
    return h("tr", {}, h("th", { scope: "row" }, name(gold)), ...cells);
  });
  return scroller("Confusion matrix", tableOf("confusion", heads, rows));
}

function wrongRows(cell, details, labels) {
  if (!cell.n_wrong) return h("p", { class: "note" }, "None.");
  const rows = cell.wrong.map(([number, label, answer]) => {
    const predicted = labels[label] ?? (answer === undefined ? "no label" : `no label: “${answer}”`);
    const [text, trueLabel] = details.texts[number];
    return h("tr", {}, h("td", { class: "text" }, text), h("td", {}, trueLabel), h("td", {}, predicted));
  });
  const heads = ["Text", "True label", "Predicted"].map((text) => heading(text));
  const part = cell.n_wrong > rows.length ? `The first ${rows.length} of ` : "";
  return scroller("Wrong rows", tableOf("wrong", heads, rows, `${part}${plural(cell.n_wrong, "wrong row")}.`));
}

// ---------------------------------------------------------------- generator outcome: two instructions side by side

function prepareOutcome() {
  const first = (series) => data.series.findIndex(({ name }) => name === data.series[series].name);
  const state = { ...data.outcome, left: first(data.outcome.left), right: first(data.outcome.right), n: data.n, seed: data.seeds[0] };
  const box = byId("outcome-box");
  const redraw = (change) => { Object.assign(state, change); drawOutcome(box, state); };
  const named = data.series.map(({ name }, i) => [i, name]).filter(([i]) => first(i) === i);
  byId("outcome-controls").append(
    choice("Task", data.tasks.map((task, i) => [i, task.name]), state.task, (task) => redraw({ task })),
    choice("Follower", [...data.scopes.entries()], state.scope, (scope) => redraw({ scope })),
    choice("Examples", data.ns.map((n) => [n, `n = ${n}`]), data.n, (n) => redraw({ n })),
    choice("Seed", data.seeds.map((seed) => [seed, String(seed)]), state.seed, (seed) => redraw({ seed })),
    choice("Left", named, state.left, (left) => redraw({ left })),
    choice("Right", named, state.right, (right) => redraw({ right })),
  );
  redraw({});
}

// Under one name, a method may have different generators with different followers.
function inScopeOf(scope, chosen) {
  const series = data.series.findIndex(({ name }, i) => name === data.series[chosen].name && data.scores[scope][i]);
  return series < 0 ? chosen : series;
}

async function drawOutcome(box, state) {
  const { task } = state;
  const details = await loadDetails(task);
  if (task !== state.task) return; // another task was chosen meanwhile
  box.replaceChildren(...[state.left, state.right].map((chosen) => {
    const series = inScopeOf(state.scope, chosen);
    const cell = details.cells.find((candidate) =>
      candidate.scope === state.scope && candidate.series === series
      && (candidate.n === 0 || (candidate.n === state.n && candidate.seed === state.seed)));
    const { name, method, generator } = data.series[series];
    const role = { zero: ", untrained", mii: ", under test" }[method] ?? "";
    const title = h("h3", {}, name, generator ? h("span", { class: "role" }, ` written by ${generator}${role}`) : "");
    if (!cell) return h("article", {}, title, h("p", { class: "note" }, "This was not run."));
    if (cell.error) return h("article", {}, title, h("p", { class: "problem" }, `This cell failed: ${cell.error}`));
    const numbers = [["Macro-F1", withInterval(cell)], ["Prompt tokens per query", whole(cell.tokens)]];
    return h("article", {}, title, facts(numbers), ...instruction(cell, details));
  }));
}

document.addEventListener("pointerover", point);
document.addEventListener("pointermove", point);
document.addEventListener("click", sortOnClick);
preparePanels();
if (byId("legend")) prepareLegend();
if (byId("task-table")) prepareTasks();
if (byId("outcome-box")) prepareOutcome();
