const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const four = (v) => Number(v).toLocaleString("en", {maximumSignificantDigits: 4});
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), {textContent: text, ...more});
const narrow = () => window.innerWidth < 600;
const views = {};

const CONFIG = {
  font: 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif',
  view: {stroke: null},
  axis: {labelColor: "#5c5c61", titleColor: "#1d1d1f", titleFontWeight: "normal", gridColor: "#ececee", domainColor: "#bbb",
    tickColor: "#bbb", labelFontSize: 11, titleFontSize: 12},
  legend: {labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", symbolType: "square"},
};

function draw(id, spec) {
  const full = {$schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container",
    autosize: {type: "fit-x", contains: "padding"}, config: CONFIG, ...spec};
  const turn = (views[id]?.turn ?? 0) + 1;
  const before = views[id];
  views[id] = {turn};
  before?.result?.finalize();
  return window.vegaEmbed($(id), full, {actions: false, renderer: "svg"}).then((result) => {
    if (views[id].turn === turn) views[id].result = result;
  });
}

// One row of buttons: of one choice, or of any number.
function choices(parent, title, values, chosen, many, changed, colour = {}) {
  const set = make("div", "", {className: "set"});
  set.setAttribute("role", "group");
  set.setAttribute("aria-label", title);
  set.append(make("span", title));
  const buttons = values.map(([value, label]) => {
    const button = make("button", "", {type: "button"});
    button.dataset.value = value;
    if (colour[value]) {
      const dot = make("i", "");
      dot.style.background = colour[value];
      button.append(dot);
    }
    button.append(label);
    button.onclick = () => {
      if (!many) chosen.clear();
      if (chosen.has(value)) chosen.delete(value); else chosen.add(value);
      show();
      changed();
    };
    set.append(button);
    return button;
  });
  const show = () => buttons.forEach((b) => b.setAttribute("aria-pressed", String(chosen.has(b.dataset.value))));
  show();
  if (values.length > 1) parent.append(set);
}

const distinct = (values) => [...new Set(values)];
const pairs = (values) => values.map((value) => [value, value]);

// The marks that no other beats: cheapest first, each better than all before it.
function frontOf(rows, x, y, sign) {
  const sorted = [...rows].sort((a, b) => a[x] - b[x] || sign * (b[y] - a[y]));
  let best = -Infinity;
  return sorted.filter((row) => sign * row[y] > best && ((best = sign * row[y]), true));
}

// Marks at nearly the same place are moved apart sideways.
function apart(rows, x, y) {
  const span = (key) => Math.max(1e-12, Math.max(...rows.map((r) => r[key])) - Math.min(...rows.map((r) => r[key])));
  const wide = span(x), high = span(y), placed = [];
  return rows.map((row) => {
    let at = row[x], tries = 0;
    const taken = () => placed.some((p) => Math.abs(p[0] - at) < 0.008 * wide && Math.abs(p[1] - row[y]) < 0.012 * high);
    while (tries < 12 && taken()) {
      tries += 1;
      at = row[x] + (tries % 2 ? 1 : -1) * Math.ceil(tries / 2) * 0.009 * wide;
    }
    placed.push([at, row[y]]);
    return {...row, at};
  });
}

function stepped(values, x, y, interpolate) {
  return {data: {values}, mark: {type: "line", color: "#999", strokeWidth: 1.2, interpolate},
    encoding: {x: {field: x, type: "quantitative"}, y: {field: y, type: "quantitative"}, order: {field: x}}};
}

let state;
function fronts() {
  const points = data.points, colour = {};
  for (const [name, look] of Object.entries(data.families)) colour[name] = look.colour;
  const parts = distinct(points.map((p) => p.group)), machines = distinct(points.map((p) => p.machine));
  state = {part: new Set([parts[0]]), machine: new Set([machines[0]]), cost: new Set(["latency_cycles"]), range: new Set(["near"]),
    families: new Set(points.map((p) => p.family))};
  const controls = $("front-controls");
  choices(controls, "task", parts.map((part) => [part, part || "accuracy"]), state.part, false, drawFront);
  choices(controls, "machine", pairs(machines), state.machine, false, drawFront);
  choices(controls, "cost", [["latency_cycles", "cycles"], ["energy_pj", "energy"]], state.cost, false, drawFront);
  choices(controls, "shown", [["near", "near the best"], ["all", "all"]], state.range, false, drawFront);
  choices(controls, "families", Object.entries(data.families).map(([k, v]) => [k, v.label]), state.families, true, drawFront, colour);
  drawFront();
}

function drawFront() {
  const [part] = state.part, [machine] = state.machine, [cost] = state.cost;
  const here = data.points.filter((p) => p.group === part && p.machine === machine);
  $("verdict").textContent = data.verdicts[`${part}|${machine}`] ?? data.verdicts[""];
  // Networks of one task are measured by one thing, of which more is better (sign 1), or less (-1).
  const quality = data.qualities[here[0]?.quality ?? "accuracy"], {sign, near: [factor, offset]} = quality;
  const best = sign * Math.max(...here.map((p) => sign * p.value)), worst = best * factor + offset;
  const shown = (p) => state.families.has(p.family) && (state.range.has("all") || sign * p.value >= sign * worst);
  const rows = apart(here.filter(shown).map((p) => ({...p,
    x: cost === "energy_pj" ? p[cost] * 1e-6 : p[cost], label: data.families[p.family].label})), "x", "value");
  fillPoints(here.filter((p) => state.families.has(p.family)));
  if (!rows.length) { views.front?.result?.finalize(); $("front").textContent = "Nothing is chosen, or nothing was measured here."; return; }
  const looks = Object.values(data.families);
  const x = {field: "at", type: "quantitative", scale: {zero: false, nice: true}, title: cost === "energy_pj" ? "energy (uJ)" : "latency (cycles)", axis: {tickCount: narrow() ? 4 : 8, format: cost === "energy_pj" ? ",.4~g" : ",.0f"}};
  const y = {field: "value", type: "quantitative", scale: {zero: false}, axis: {format: quality.format, tickCount: 6}, title: quality.axis};
  const family = {field: "label", type: "nominal", legend: null};
  draw("front", {height: narrow() ? 300 : 420, layer: [
    stepped(frontOf(rows, "x", "value", sign).map((r) => ({at: r.x, value: r.value})), "at", "value", "step-after"),
    {data: {values: rows}, mark: {type: "rule", opacity: 0.45}, encoding: {x, y: {...y, field: "low"}, y2: {field: "high"},
      color: {...family, scale: {domain: looks.map((l) => l.label), range: looks.map((l) => l.colour)}}}},
    {data: {values: rows}, mark: {type: "point", filled: true, size: 85, opacity: 0.9}, encoding: {x, y,
      color: {...family, scale: {domain: looks.map((l) => l.label), range: looks.map((l) => l.colour)}},
      shape: {...family, scale: {domain: looks.map((l) => l.label), range: looks.map((l) => l.shape)}},
      tooltip: [{field: "name", title: "network"}, {field: "label", title: "family"}, {field: "value", format: quality.digits, title: quality.axis},
        {field: "low", format: quality.digits, title: "lowest seed"}, {field: "high", format: quality.digits, title: "highest seed"},
        {field: "seeds"}, {field: "latency_cycles", format: ",.0f", title: "cycles"},
        {field: "energy_pj", format: ",.4~s", title: "energy (pJ)"}]}}]});
}

// A table whose columns sort: [key, title, text of a value, whether it is a number].
const sorting = {};
function fill(id, columns, rows) {
  const table = $(id), order = (sorting[id] ??= {});
  const sorted = [...rows];
  if (order.key) {
    const number = columns.find(([key]) => key === order.key)?.[3];
    sorted.sort((a, b) => order.sign * (number ? (a[order.key] ?? Infinity) - (b[order.key] ?? Infinity)
      : String(a[order.key]).localeCompare(String(b[order.key]))));
  }
  const head = make("tr", "");
  for (const [key, title, , number] of columns) {
    const cell = make("th", title, {className: number ? "n" : "", tabIndex: 0});
    cell.dataset.key = key;
    cell.setAttribute("aria-sort", order.key !== key ? "none" : order.sign > 0 ? "ascending" : "descending");
    cell.onclick = () => {
      order.sign = order.key === key ? -order.sign : 1;
      order.key = key;
      fill(id, columns, rows);
    };
    cell.onkeydown = (event) => { if (event.key === "Enter") cell.onclick(); };
    head.append(cell);
  }
  const body = make("tbody", "");
  for (const row of sorted) {
    const line = make("tr", "");
    for (const [key, , text, number] of columns) {
      const value = row[key];
      line.append(make("td", value === null || value === undefined || value === "" ? "–" : text(value), {className: number ? "n" : ""}));
    }
    body.append(line);
  }
  const top = make("thead", "");
  top.append(head);
  table.replaceChildren(top, body);
}

const percent = (v) => `${(100 * v).toFixed(1)} %`;
function fillPoints(points) {
  const dense = points.filter((p) => data.families[p.family].label === "dense").sort((a, b) => b.latency_cycles - a.latency_cycles)[0];
  const measure = points[0]?.quality ?? "accuracy", told = measure === "accuracy" ? percent : four;
  const rows = points.map((p) => ({...p, range: p.seeds > 1 ? `${told(p.low)} to ${told(p.high)}` : "",
    share: dense ? p.latency_cycles / dense.latency_cycles : null, uj: p.energy_pj * 1e-6}));
  fill("table", [["name", "network", String, false], ["machine", "machine", String, false], ["value", measure, told, true],
    ["range", "over seeds", String, true], ["seeds", "seeds", whole.format, true], ["latency_cycles", "cycles", whole.format, true],
    ["share", "of dense", (v) => v.toFixed(3), true], ["uj", "energy (uJ)", four, true]].filter(([key]) => key !== "share" || dense), rows);
}

let swept;
function sweep() {
  const fields = data.fields;
  swept = {by: new Set([fields[0]])};
  choices($("sweep-controls"), "colour by", pairs(fields), swept.by, false, drawSweep);
  const number = (key) => data.swept.every((row) => row[key] === null || row[key] === "" || !isNaN(row[key]));
  const told = {latency_cycles: ["cycles", whole.format], latency_ms: ["ms", four], uj: ["energy (uJ)", four],
    dram_bytes: ["DRAM bytes", whole.format], utilisation: ["array used", percent], bound: ["bound by", String],
    tiles: ["tiles", whole.format], area_mm2: ["mm2", four], relative_error: ["relative error", four], error: ["error", String]};
  const rows = data.swept.map((row) => ({...row, uj: row.energy_pj === null ? null : row.energy_pj * 1e-6}));
  const kept = Object.entries(told).filter(([key]) => rows.some((row) => row[key] !== null && row[key] !== ""));
  const settings = [...(distinct(rows.map((r) => r.source)).length > 1 ? ["source"] : []), ...fields];
  fill("table", [...settings.map((f) => [f, f, String, number(f)]),
    ...kept.map(([key, [title, text]]) => [key, title, text, key === "uj" || number(key)])], rows);
  drawSweep();
}

function drawSweep() {
  const [by] = swept.by;
  const rows = apart(data.swept.filter((row) => row.energy_pj !== null).map((row) => ({...row, x: row.latency_ms, uj: row.energy_pj * 1e-6,
    of: String(row[by] ?? "none")})), "x", "uj");
  if (!rows.length) { $("swept").textContent = "No point has figures."; return; }
  const names = distinct(rows.map((r) => r.of));
  const settings = data.fields.map((f) => ({field: f.replaceAll(".", "\\.").replaceAll("[", "\\["), title: f, type: "nominal"}));
  const x = {field: "at", type: "quantitative", title: "latency (ms)", scale: {zero: false}, axis: {tickCount: narrow() ? 4 : 8}};
  const y = {field: "uj", type: "quantitative", title: "energy (uJ)", scale: {zero: false}};
  draw("swept", {height: narrow() ? 300 : 420, layer: [
    stepped(frontOf(rows, "x", "uj", -1).map((r) => ({at: r.x, uj: r.uj})), "at", "uj", "step-after"),
    {data: {values: rows}, mark: {type: "point", filled: true, size: 75, opacity: 0.85}, encoding: {x, y,
      color: {field: "of", type: "nominal", title: by, sort: names, scale: {domain: names, range: Object.values(data.causes)}, legend: {orient: "top", columns: narrow() ? 3 : 8}},
      tooltip: [...settings, {field: "latency_cycles", format: ",.0f", title: "cycles"}, {field: "latency_ms", format: ".4~g", title: "ms"},
        {field: "uj", format: ",.4~g", title: "energy (uJ)"}, {field: "bound", title: "bound by"}]}}]});
}

function programs() {
  const select = $("program");
  data.runs.forEach((run, i) => select.append(make("option", `${run.name} on ${run.machine}`, {value: i})));
  select.onchange = () => inside(data.runs[select.value]);
  if (data.runs.length < 2) { select.parentElement.parentElement.hidden = true; }
  fill("compared", [["name", "program", String, false], ["machine", "machine", String, false], ["cycles", "cycles", whole.format, true],
    ["ms", "ms", four, true], ["uj", "energy (uJ)", four, true], ["bytes", "DRAM bytes", whole.format, true],
    ["utilisation", "array used", percent, true], ["roof", "of the roof", percent, true], ["bound", "lowest roof", String, false], ["tiles", "tiles", whole.format, true]], data.runs);
  inside(data.runs[0]);
}

const words = (text) => text.replaceAll("_", " ").toLowerCase();
function inside(run) {
  $("program-said").textContent = `${run.name} on ${run.machine}: ${whole.format(run.cycles)} cycles; the ${run.bound} roof is the lowest, and the program reaches ${percent(run.roof)} of it.`;
  causes(run);
  roofline(run);
  timeline(run);
  const line = $("trace");
  if (run.trace) {
    const link = make("a", "Perfetto trace of this run", {href: run.trace, download: `${run.name}.${run.machine}.trace.json.gz`});
    line.replaceChildren(link, " — save it and open it at ui.perfetto.dev.");
  } else {
    line.replaceChildren("The trace is too large for this page: ", make("code", `gblr-hw simulate ${run.file} --trace trace.json.gz`), " writes it.");
  }
}

function causes(run) {
  const names = Object.keys(data.causes);
  const rows = run.causes.flatMap((bar, i) => names.filter((c) => bar.causes[c]).map((c) => ({layer: bar.layer, at: i, cause: words(c),
    turn: names.indexOf(c), cycles: bar.causes[c], used: bar.used})));
  const present = names.filter((c) => rows.some((row) => row.cause === words(c)));
  const colour = {field: "cause", type: "nominal", title: null, scale: {domain: present.map(words), range: present.map((c) => data.causes[c])},
    legend: {orient: "top", columns: narrow() ? 2 : 8}};
  const totals = present.map((c) => ({cause: words(c), turn: names.indexOf(c), cycles: rows.filter((r) => r.cause === words(c)).reduce((s, r) => s + r.cycles, 0)}));
  totals.forEach((t) => { t.share = t.cycles / run.cycles; });
  const x = {field: "cycles", type: "quantitative", stack: "zero", title: "cycles", axis: {tickCount: narrow() ? 3 : 8, format: ",.0f"}};
  draw("causes-total", {height: 34, data: {values: totals}, mark: {type: "bar"}, encoding: {x: {...x, scale: {domain: [0, run.cycles], nice: false}}, color: colour, order: {field: "turn"},
    tooltip: [{field: "cause"}, {field: "cycles", format: ","}, {field: "share", format: ".1%", title: "of the latency"}]}});
  draw("causes", {height: 17 * run.causes.length, data: {values: rows}, mark: {type: "bar"}, encoding: {
    y: {field: "layer", type: "nominal", sort: run.causes.map((b) => b.layer), title: null, axis: {labelLimit: narrow() ? 110 : 260}},
    x, color: {...colour, legend: null}, order: {field: "turn"}, tooltip: [{field: "layer"}, {field: "cause"}, {field: "cycles", format: ","}, {field: "used", format: ".1%", title: "array used by the layer"}]}});
}

function roofline(run) {
  const {dots, whole: star, flat, slope} = run.roofline;
  if (!dots.length) { views.roofline?.result?.finalize(); $("roofline").textContent = "No operator both multiplies and moves bytes."; return; }
  const ridge = flat / slope, all = [...dots.map((d) => d.x), star.x, ridge];
  const low = Math.min(...all) / 2, high = Math.max(...all) * 2;
  const roof = [{x: low, y: low * slope}, {x: ridge, y: flat}, {x: high, y: flat}];
  const bottom = Math.min(...dots.map((d) => d.y), star.y) / 2;
  const groups = Object.keys(data.groups).filter((g) => dots.some((d) => d.group === g));
  const x = {field: "x", type: "quantitative", scale: {type: "log", domain: [low, high], nice: false}, axis: {tickCount: 5, format: "~s"}, title: "useful multiplications for a byte of DRAM traffic"};
  const y = {field: "y", type: "quantitative", scale: {type: "log", domain: [Math.min(bottom, low * slope), flat * 1.8], nice: false}, axis: {tickCount: 5, format: "~s"}, title: "useful multiplications in a cycle"};
  draw("roofline", {height: narrow() ? 280 : 380, layer: [
    {data: {values: roof}, mark: {type: "line", color: "#666", strokeWidth: 1.4, clip: true}, encoding: {x, y, order: {field: "x"}}},
    {data: {values: [...dots].sort((a, b) => b.cycles - a.cycles)}, mark: {type: "circle", opacity: 0.5}, encoding: {x, y,
      size: {field: "cycles", type: "quantitative", scale: {range: [15, 600]}, legend: null},
      color: {field: "group", type: "nominal", title: null, scale: {domain: groups, range: groups.map((g) => data.groups[g])}, legend: {orient: "top", columns: narrow() ? 2 : 6}},
      tooltip: [{field: "layer"}, {field: "group"}, {field: "cycles", format: ","}, {field: "x", format: ",.4~g", title: "a byte"}, {field: "y", format: ",.4~g", title: "a cycle"}]}},
    {data: {values: [{...star, layer: "whole program"}]}, mark: {type: "point", filled: true, color: "#000", size: 160, shape: "M0,-1L0.23,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.23,-0.31Z", opacity: 1},
      encoding: {x, y, tooltip: [{field: "layer"}, {field: "x", format: ",.4~g", title: "a byte"}, {field: "y", format: ",.4~g", title: "a cycle"}]}}]});
}

function timeline(run) {
  const {units, operations, layers, spans, gap} = run.timeline;
  const rows = spans.map(([unit, op, layer, start, end]) => ({unit: units[unit], op: words(operations[op]), key: operations[op], layer: layers[layer], start, end, cycles: end - start}));
  const kinds = operations.filter((op) => rows.some((row) => row.key === op));
  draw("timeline", {height: 30 * new Set(rows.map((row) => row.unit)).size, data: {values: rows}, params: [{name: "zoom", bind: "scales", select: {type: "interval", encodings: ["x"], zoom: "wheel![event.shiftKey]"}}],
    mark: {type: "rect", clip: true, height: 22}, encoding: {
      x: {field: "start", type: "quantitative", title: "cycle", scale: {domain: [0, run.cycles], nice: false}, axis: {tickCount: narrow() ? 3 : 8, format: ",.0f"}}, x2: {field: "end"},
      y: {field: "unit", type: "nominal", sort: units, title: null, axis: {labelLimit: narrow() ? 90 : 160}},
      color: {field: "op", type: "nominal", title: null, scale: {domain: kinds.map(words), range: kinds.map((k) => data.operations[k])}, legend: {orient: "top", columns: narrow() ? 2 : 7}},
      tooltip: [{field: "op", title: "operation"}, {field: "layer"}, {field: "unit"}, {field: "start", format: ",", title: "from cycle"}, {field: "cycles", format: ","}]}});
  const merged = gap < 0 ? "Every instruction is drawn." : `Neighbours on a unit are drawn as one across gaps of at most ${whole.format(gap)} cycles.`;
  $("timeline-said").textContent = `${merged} Drag to move; hold shift and turn the wheel to look closer.`;
}

if (data.points.length) fronts();
if (data.swept.length) sweep();
if (data.runs.length) programs();
// Sizes of type and legends are chosen anew where the page becomes narrow or wide.
let was = narrow();
window.addEventListener("resize", () => {
  if (narrow() === was) return;
  was = narrow();
  if (data.points.length) drawFront();
  if (data.swept.length) drawSweep();
  if (data.runs.length) inside(data.runs[$("program").value || 0]);
});
