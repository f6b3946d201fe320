const body = document.querySelector("#rows tbody"), find = document.querySelector("#find"), group = document.querySelector("#group");
const statuses = [...document.querySelectorAll("select.status")], shown = document.querySelector("#shown");
let key = "name", down = false;
const text = (tag, words, kind) => { const made = document.createElement(tag); made.textContent = words; if (kind) made.className = kind; return made; };
const seconds = value => value == null ? "–" : value < 1 ? (value * 1e3).toPrecision(3) + " ms" : value.toPrecision(3) + " s";
const bytes = value => value == null ? "–" : Math.round(value / 2 ** 20) + " MiB";
const part = (row, path) => { const dot = path.lastIndexOf("."); return dot < 0 ? row[path] : (row.cells[path.slice(0, dot)] || {})[path.slice(dot + 1)]; };
const matches = row => (!group.value || row.group === group.value)
  && statuses.every(one => !one.value || (row.cells[one.dataset.hardware] || {}).status === one.value)
  && (!find.value || JSON.stringify(row).toLowerCase().includes(find.value.toLowerCase()));
function line(row) {
  const made = document.createElement("tr");
  made.append(text("td", row.name, "id"), text("td", row.group), text("td", row.model || "–"), text("td", row.parameters ? row.parameters.toLocaleString() : "–", "n"));
  for (const name of hardware) {
    const cell = row.cells[name], status = text("td", "", "edge");
    if (cell) status.append(text("span", cell.status, "chip " + cell.status));
    made.append(status, text("td", cell && cell.error != null ? (cell.error ? cell.error.toExponential(0) : "0") : "–", "n"), text("td", seconds(cell && cell.load_s), "n"), text("td", seconds(cell && cell.run_s), "n"), text("td", bytes(cell && cell.peak_bytes), "n"));
  }
  made.addEventListener("click", () => made.nextSibling && made.nextSibling.className === "more" ? made.nextSibling.remove() : made.after(more(row)));
  return made;
}
function more(row) {
  const made = text("tr", "", "more"), place = document.createElement("td"), list = document.createElement("dl");
  const add = (name, words) => { if (words) list.append(text("dt", name), text("dd", words)); };
  place.colSpan = 4 + 5 * hardware.length;
  add("checkpoint", row.checkpoint);
  add("note", row.note);
  add("made small", row.level);
  add("inputs", Object.entries(row.inputs || {}).map(([name, shape]) => name + " " + JSON.stringify(shape)).join(", "));
  add("processors", (row.processors || []).join(", ") || (row.inputs ? "none: tensors of the right shape" : ""));
  for (const name of hardware) {
    const cell = row.cells[name];
    if (!cell) continue;
    add(name, [cell.route && "by " + cell.route, cell.precision, cell.batch_sizes && "rows at once: " + cell.batch_sizes.join(", "),
      cell.generates != null && (cell.generates ? "generates" : "generate() fails"), cell.tokens_equal != null && (cell.tokens_equal ? "the same tokens" : "other tokens"),
      ...Object.entries(cell.other_precisions || {}).map(([kind, error]) => kind + " error " + error.toPrecision(2))].filter(Boolean).join("; "));
    add(name + ": reason", cell.reason);
    add(name + ": next", cell.fix);
  }
  place.append(list);
  made.append(place);
  return made;
}
function draw() {
  const chosen = rows.filter(matches);
  chosen.sort((one, other) => {
    const a = part(one, key), b = part(other, key);
    if (a == null || b == null) return (a == null) - (b == null);
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return down ? -order : order;
  });
  body.replaceChildren(...chosen.map(line));
  shown.textContent = chosen.length + " of " + rows.length;
  for (const head of document.querySelectorAll("#rows th")) head.setAttribute("aria-sort", head.dataset.key === key ? (down ? "descending" : "ascending") : "none");
}
for (const head of document.querySelectorAll("#rows th")) head.addEventListener("click", () => { down = key === head.dataset.key && !down; key = head.dataset.key; draw(); });
for (const one of [find, group, ...statuses]) one.addEventListener("input", draw);
draw();
