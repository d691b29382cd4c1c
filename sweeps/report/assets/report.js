"use strict";
// The page holds each table once, by column. Charts name the rows they draw. What a reader chooses,
// a model, a metric at a step, a scale, reaches every chart: as the rows it is given, or as
// parameters (`chosen`, and the ends of its scales).
(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  // Charts that are drawn without being looked at; of a page with more, the rest wait to be in sight.
  const EAGER = 160;
  const root = document.documentElement;
  const shown = { model: "", view: page.views[0], scale: "shared" };
  const tables = {};
  const views = [];
  const waiting = [];
  let drawing = null;

  // ---------------------------------------------------------------------------------------- rows
  function rowsOf(name) {
    if (!tables[name]) {
      const { length, columns } = page.tables[name];
      const rows = Array.from({ length }, () => ({}));
      for (const [key, column] of Object.entries(columns)) {
        if ("same" in column) rows.forEach((row) => { row[key] = column.same; });
        else if (column.codes) column.codes.forEach((code, i) => { rows[i][key] = code === null ? null : column.names[code]; });
        else column.forEach((value, i) => { rows[i][key] = value; });
      }
      tables[name] = rows;
    }
    return tables[name];
  }

  const modelShown = () => shown.model || (page.models[0] ?? "");

  // What decides which rows a chart has, as far as its table has such columns.
  function wanted(chart) {
    const own = { view: shown.view.name, metric: shown.view.metric, ...chart.only };
    if (chart.follows === "filter") own.model = modelShown();
    return Object.entries(own);
  }

  const matches = (row, pairs) => pairs.every(([key, value]) => !(key in row) || row[key] === value);

  // Of a long table only the rows of the model are looked through.
  const byModel = {};
  function grouped(rows) {
    const found = new Map();
    for (const row of rows) (found.get(row.model) ?? found.set(row.model, []).get(row.model)).push(row);
    return found;
  }

  function rowsOfModel(name, model) {
    if (model === undefined || !("model" in page.tables[name].columns)) return rowsOf(name);
    byModel[name] ??= grouped(rowsOf(name));
    return byModel[name].get(model) ?? [];
  }

  function rowsFor(chart) {
    const pairs = wanted(chart);
    return rowsOfModel(chart.table, Object.fromEntries(pairs).model).filter((row) => matches(row, pairs));
  }

  function limitsFor(chart) {
    if (!chart.limits) return {};
    const pairs = wanted(chart);
    return rowsOf(chart.limits).find((row) => matches(row, pairs)) ?? {};
  }

  // -------------------------------------------------------------------------------------- colours
  function theme() {
    return root.dataset.theme === "dark" ? "dark" : "light";
  }

  function style(name, of) {
    if (of === "paper") return { "--ink": "#1d2129", "--soft": "#4d5763", "--line": "#dfe2e6" }[name];
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  function config(of) {
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style(name, of));
    return {
      background: of === "paper" ? "#fff" : "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: null },
      mark: { color: ink },
      axis: {
        labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line,
        titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 11,
      },
      legend: {
        // Two legends stand one above the other: side by side the second is cut off.
        layout: { top: { direction: "vertical", anchor: "start", margin: 4 } },
        labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontSize: 11, symbolType: "circle",
        titleFontWeight: "normal", symbolBaseFillColor: soft, symbolBaseStrokeColor: soft,
      },
      title: { color: ink, anchor: "start", fontSize: 12 },
      rule: { color: soft },
      text: { color: soft },
    };
  }

  // Colours have one meaning each: that of an arm, or of a verdict.
  function coloursOf(field, strong, of) {
    const colours = field === "arm" ? page.colours.arm : page.colours.verdict;
    return colours[strong ? "strong" : of === "paper" ? "light" : theme()];
  }

  // A row's name in two lines, what comes after the model on the second.
  const FIRST = "indexof(datum.label, ' · ')";
  const APART = `${FIRST} < 0 ? datum.label : [slice(datum.label, 0, ${FIRST}), slice(datum.label, ${FIRST} + 3)]`;

  // A specification with what this page gives it: hues, ends of scales, names of axes, a legend in
  // as many columns as there is room for, and row names that leave the most of a narrow page to
  // what they name.
  function dressed(chart, width, rows, of) {
    const copy = structuredClone(page.specs[chart.spec]);
    const longest = Math.max(60, Math.floor(width * 0.42));
    const limits = limitsFor(chart);
    if (chart.row_pixels) {
      const different = new Set(rows.map((row) => JSON.stringify(chart.row_keys.map((key) => row[key]))));
      copy.height = Math.max(40, different.size * chart.row_pixels);
    }
    for (const param of copy.params ?? []) {
      if (param.name === "chosen") param.value = of === "paper" ? "" : shown.model;
      else param.value = limits[`${param.name}_${shown.scale}`] ?? limits[param.name] ?? param.value;
    }
    (function visit(node) {
      if (Array.isArray(node)) node.forEach(visit);
      else if (node && typeof node === "object") {
        if (node.title === "{metric}") node.title = shown.view.title;
        const domain = node.scale?.domain;
        if (["arm", "finding", "verdict"].includes(node.field) && Array.isArray(domain)) {
          const hue = coloursOf(node.field, node.field === "verdict", of);
          // The dash of an arm has a range of its own.
          node.scale.range ??= domain.map((name) => hue[name]);
          if (chart.keyed && of !== "paper") node.legend = null;
        }
        if (node.axis?.labelLimit) node.axis.labelLimit = Math.min(node.axis.labelLimit, longest);
        if (node.field === "row" && node.axis && !node.axis.labelExpr && width < 640) {
          Object.assign(node.axis, { labelExpr: APART, labelLineHeight: 11, labelFontSize: 10 });
        }
        if (node.legend?.columns) {
          const names = node.legend.values ?? domain ?? rows.map((row) => row[node.field] ?? "");
          const letters = Math.max(...names.map((name) => String(name).length));
          const columns = Math.floor((width - 60) / (7 * letters + 30));
          Object.assign(node.legend, {
            columns: Math.max(1, Math.min(8, columns)), labelLimit: Math.min(node.legend.labelLimit ?? 480, width - 90),
          });
        }
        Object.values(node).forEach(visit);
      }
    })(copy);
    return { ...copy, datasets: { ...copy.datasets, [chart.table]: rows }, description: chart.label };
  }

  // ------------------------------------------------------------------------------------- drawing
  async function draw(element) {
    const chart = page.charts[Number(element.dataset.chart)];
    const rows = rowsFor(chart);
    const figure = element.closest("figure");
    if (figure) figure.hidden = !rows.length;
    element.dataset.drawn = rows.length ? "yes" : "empty";
    if (!rows.length) {
      element.replaceChildren();
      element.nextElementSibling?.matches?.(".save") && element.nextElementSibling.remove();
      views.push({ chart, element });
      return;
    }
    const spec = dressed(chart, element.clientWidth, rows);
    const result = await window.vegaEmbed(element, spec, {
      actions: false, renderer: "svg", config: config(), tooltip: { theme: "custom" },
    });
    const view = result.view;
    views.push({ view, chart, element, result });
    view.addEventListener("click", (_event, item) => {
      const model = item?.datum?.model;
      if (model) choose(model === shown.model ? "" : model);
    });
    if (takes(chart, "chosen")) view.signal("chosen", shown.model);
    await view.runAsync();
    sayCount(element, rows);
    offerFiles(chart, element);
  }

  // A map has no room for it: over how many seeds it is stands with its title.
  function sayCount(element, rows) {
    const place = element.closest(".panel")?.querySelector("[data-count]");
    if (!place) return;
    const counts = rows.map(({ n }) => n);
    const [least, most] = [Math.min(...counts), Math.max(...counts)];
    place.textContent = least === most ? `(n = ${most})` : `(n = ${least}–${most})`;
  }

  function takes(chart, parameter) {
    return (page.specs[chart.spec].params ?? []).some(({ name }) => name === parameter);
  }

  // Charts in sight first, the others one at a time, so that the page answers at once.
  async function drawWaiting() {
    root.dataset.charts = "drawing";
    while (waiting.length) {
      const inSight = waiting.findIndex((element) => {
        const box = element.getBoundingClientRect();
        return box.width > 0 && box.bottom > 0 && box.top < window.innerHeight;
      });
      const [element] = waiting.splice(Math.max(inSight, 0), 1);
      try {
        await draw(element);
      } catch (error) {
        element.textContent = `This chart could not be drawn: ${error.message}`;
        console.error(error);
      }
      await new Promise((done) => setTimeout(done, 0));
    }
    root.dataset.charts = "drawn";
  }

  function drawAll() {
    drawing ??= drawWaiting().finally(() => { drawing = null; });
    return drawing;
  }

  async function redraw(which) {
    const again = views.filter(which);
    for (const entry of again) {
      views.splice(views.indexOf(entry), 1);
      entry.result?.finalize();
      waiting.push(entry.element);
    }
    await drawAll();
  }

  // --------------------------------------------------------------------------------------- saving
  function offerFiles(chart, element) {
    if (element.nextElementSibling?.matches?.(".save")) return;
    const bar = document.createElement("div");
    bar.className = "save";
    for (const kind of ["SVG", "PNG", "CSV"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = kind;
      button.setAttribute("aria-label", `Save as ${kind}: ${chart.label}`);
      button.addEventListener("click", () => save(chart, element, kind));
      bar.append(button);
    }
    element.after(bar);
  }

  async function save(chart, element, kind) {
    const model = chart.only.model ?? (chart.follows === "filter" ? modelShown() : "");
    const title = [model, chart.title].filter(Boolean).join(" · ");
    const name = [page.name, title, chart.table === "curves" ? "" : shown.view.name].filter(Boolean).join("-");
    const file = name.replace(/[^\p{L}\p{N}.]+/gu, "-").toLowerCase();
    if (kind === "CSV") return hand(`${file}.csv`, new Blob([csvOf(rowsFor(chart))], { type: "text/csv" }));
    const place = document.createElement("div");
    const width = Math.max(element.clientWidth, 320);
    const spec = dressed(chart, width, rowsFor(chart), "paper");
    const { view, finalize } = await window.vegaEmbed(
      place, { ...spec, title, width, autosize: { type: "fit-x", contains: "padding" } },
      { actions: false, renderer: "svg", config: config("paper") },
    );
    if (kind === "SVG") hand(`${file}.svg`, new Blob([await view.toSVG()], { type: "image/svg+xml" }));
    else {
      const canvas = await view.toCanvas(3);
      await new Promise((done) => canvas.toBlob((blob) => { hand(`${file}.png`, blob); done(); }));
    }
    finalize?.();
  }

  function csvOf(rows) {
    const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !name.startsWith("_"));
    const cell = (value) => {
      const text = Array.isArray(value) ? value.join(";") : String(value ?? "");
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n") + "\n";
  }

  function hand(name, blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // -------------------------------------------------------------------------------------- choices
  function remember() {
    // The address keeps what was chosen over a reload, and in a link.
    const kept = new URLSearchParams();
    if (shown.model) kept.set("model", shown.model);
    if (shown.view !== page.views[0]) kept.set("view", shown.view.name);
    if (shown.scale !== "shared") kept.set("scale", shown.scale);
    history.replaceState(null, "", `#${kept}`);
  }

  function choose(model) {
    shown.model = model;
    remember();
    for (const button of document.querySelectorAll("nav.models button[data-model]")) {
      button.setAttribute("aria-pressed", String(button.dataset.model === model));
    }
    for (const element of document.querySelectorAll("[data-of-model]")) {
      const own = element.dataset.ofModel === model;
      element.classList.toggle("chosen", model !== "" && own);
      element.classList.toggle("unchosen", model !== "" && !own);
    }
    for (const place of document.querySelectorAll("[data-shown-model]")) place.textContent = modelShown();
    for (const { view, chart } of views) {
      if (view && takes(chart, "chosen")) view.signal("chosen", model).runAsync();
    }
    document.getElementById("status").textContent = model ? `Showing ${model}` : "Showing every model";
    return redraw(({ chart }) => chart.follows === "filter");
  }

  const [metrics, steps, scales] = ["metric", "step", "scale"].map((id) => document.getElementById(id));
  const viewed = ({ chart }) => ["view", "metric"].some((key) => key in page.tables[chart.table].columns);

  // Both lists say what there is: a step at which a metric was not kept cannot be asked of it.
  function offerViews() {
    for (const option of steps.options) {
      option.disabled = !page.views.some((view) => view.metric === metrics.value && view.at === option.value);
    }
  }

  function show(view) {
    shown.view = view;
    metrics.value = view.metric;
    steps.value = view.at;
    offerViews();
    remember();
    for (const block of document.querySelectorAll("[data-answer]")) block.hidden = block.dataset.answer !== view.name;
    for (const block of document.querySelectorAll("[data-first-view]")) block.hidden = view !== page.views[0];
    for (const place of document.querySelectorAll("[data-shown-metric]")) place.textContent = view.title;
    for (const place of document.querySelectorAll("[data-shown-step]")) {
      place.textContent = steps.selectedOptions[0].textContent;
    }
    return redraw(viewed);
  }

  function showChosen() {
    const at = [steps.value, "final"];
    const found = at.map((one) => page.views.find((view) => view.metric === metrics.value && view.at === one));
    show(found.find(Boolean) ?? page.views.find((view) => view.metric === metrics.value));
  }

  function rescale(scale) {
    shown.scale = scales.value = scale;
    remember();
    return redraw(({ chart }) => chart.limits === "band_limits");
  }

  function setTheme(name) {
    root.dataset.theme = name;
    for (const mark of document.querySelectorAll(".key i[data-arm]")) {
      mark.style.color = page.colours.arm[theme()][mark.dataset.arm];
    }
  }

  // --------------------------------------------------------------------------------------- start
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const asSystem = () => setTheme(system.matches ? "dark" : "light");
  asSystem();
  system.addEventListener("change", () => { asSystem(); redraw(() => true); });
  document.querySelector("nav.models").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id !== "theme") choose(button.dataset.model === shown.model ? "" : button.dataset.model);
    else {
      setTheme(theme() === "dark" ? "light" : "dark");
      redraw(() => true);
    }
  });
  metrics.addEventListener("change", showChosen);
  steps.addEventListener("change", showChosen);
  scales.addEventListener("change", () => rescale(scales.value));
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  const places = [...document.querySelectorAll("[data-chart]")];
  const eager = places.filter((element) => !element.closest("details")).slice(0, EAGER);
  const late = new IntersectionObserver((seen) => {
    for (const { target } of seen.filter((one) => one.isIntersecting)) {
      late.unobserve(target);
      waiting.push(target);
    }
    if (waiting.length) drawAll();
  }, { rootMargin: "400px" });
  for (const element of places) if (!eager.includes(element)) late.observe(element);
  waiting.push(...eager);
  offerViews();
  for (const place of document.querySelectorAll("[data-shown-model]")) place.textContent = modelShown();
  window.depthsweep = { choose, show, rescale, views, page, rowsFor };
  root.dataset.ready = "yes";
  const asked = new URLSearchParams(location.hash.slice(1));
  const view = page.views.find(({ name }) => name === asked.get("view"));
  if (view) show(view);
  if ([...scales.options].some(({ value }) => value === asked.get("scale"))) rescale(asked.get("scale"));
  drawAll().then(() => {
    if (page.models.includes(asked.get("model"))) choose(asked.get("model"));
  });
})();
