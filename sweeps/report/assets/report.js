"use strict";
// The page holds each table once, by column. Charts name the rows they draw; the reader's one
// choice, a model, is passed to every chart as the parameter `chosen`.
(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  const tables = {};
  const views = [];
  const waiting = [];
  let chosen = "";
  let toNull = false;

  const HUES = {
    light: [
      "#1f5fbf", "#c8501e", "#14805e", "#8a3f9e", "#a07400", "#c02f63", "#52616f", "#2a8fa8",
      "#6b7f12", "#7a5230", "#4d4bc9", "#b0489a", "#0f6f2f", "#9a2f2f", "#3c6e8f", "#87692f",
    ],
    dark: [
      "#7fb0ff", "#ff9a66", "#4fd0a3", "#d193e6", "#e6bd4f", "#ff85ac", "#a9b6c4", "#66cbe3",
      "#bccf5a", "#cfa27a", "#a5a3ff", "#f29ae0", "#7fdc8f", "#f08a8a", "#8fbfe0", "#d9be86",
    ],
  };
  // White text stands on these, in both themes.
  const STRONG = ["#1f5fbf", "#b5480f", "#126b4f", "#7a3590", "#7d5a00", "#a8265a", "#55606c", "#1f7489"];
  // Of what is no finding: greys, of which the first is for what was tested and stayed open.
  const NEUTRAL = { light: ["#4d5763", "#7b8592"], dark: ["#c3cad3", "#8b95a3"], strong: ["#4a5460", "#66707c"] };
  // Names that mean the same in every chart keep one colour in every chart.
  const MEANINGS = {
    finished: 2, persists: 2, diverged: 5, reverses: 5, failed: 1, collapses: 1, unfinished: 4, pending: 6,
  };
  const isKnown = (name) => name in MEANINGS || page.neutral.includes(name);

  // As many hues as a legend has names: none is used twice.
  function hues(count) {
    const own = HUES[theme()];
    const lightness = theme() === "dark" ? 70 : 38;
    const more = (k) => `hsl(${Math.round(k * 137.508) % 360}, ${45 + (k % 3) * 15}%, ${lightness}%)`;
    return Array.from({ length: count }, (_, k) => own[k] ?? more(k));
  }

  function meaning(name, strong) {
    if (name in MEANINGS) return (strong ? STRONG : HUES[theme()])[MEANINGS[name]];
    return NEUTRAL[strong ? "strong" : theme()][name === "inconclusive" ? 0 : 1];
  }

  // A row's name in two lines, the objective on the second.
  const LAST = "lastindexof(datum.label, ' · ')";
  const LAST_APART = `[slice(datum.label, 0, ${LAST}), slice(datum.label, ${LAST} + 3)]`;

  function theme() {
    return document.documentElement.dataset.theme === "dark" ? "dark" : "light";
  }

  function config() {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    const soft = style.getPropertyValue("--soft").trim();
    const line = style.getPropertyValue("--line").trim();
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: {
        labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line,
        titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 11,
      },
      legend: {
        // Two legends stand one above the other: side by side the second is cut off.
        layout: { top: { direction: "vertical", anchor: "start", margin: 4 } },
        labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontSize: 11, symbolType: "circle",
        symbolBaseFillColor: soft, symbolBaseStrokeColor: soft,
      },
      rule: { color: soft },
      text: { color: ink },
      range: { category: hues(Math.max(64, page.models.length)) },
    };
  }

  function rowsOf(name) {
    if (!tables[name]) {
      const { length, columns } = page.tables[name];
      const rows = Array.from({ length }, () => ({}));
      for (const [key, column] of Object.entries(columns)) {
        const values = column.codes ? column.codes.map((code) => (code === null ? null : column.names[code])) : column;
        values.forEach((value, i) => { rows[i][key] = value; });
      }
      tables[name] = rows;
    }
    return tables[name];
  }

  function firstModel() {
    return page.models[0] ?? "";
  }

  function rowsFor(chart) {
    const only = Object.entries(chart.only);
    if (chart.follows === "filter") only.push(["model", chosen || firstModel()]);
    return rowsOf(chart.table).filter((row) => only.every(([key, value]) => row[key] === value));
  }

  // A scale whose names have a meaning of their own takes the colours of that meaning.
  // A legend is laid out in as many columns as its longest name leaves room for.
  // The names of rows leave the most of a narrow page to what they name.
  function dressed(chart, width, rows) {
    const copy = structuredClone(chart.spec);
    const strong = chart.table === "persistence";
    const longest = Math.max(60, Math.floor(width * 0.36));
    for (const param of copy.params ?? []) {
      if (param.name === "span") param.value = rows[0].span;
    }
    (function visit(node) {
      if (Array.isArray(node)) node.forEach(visit);
      else if (node && typeof node === "object") {
        const domain = node.color?.scale?.domain;
        if (Array.isArray(domain) && domain.length && domain.every(isKnown)) {
          node.color.scale.range = domain.map((name) => meaning(name, strong));
        }
        if (node.axis?.labelLimit) node.axis.labelLimit = Math.min(node.axis.labelLimit, longest);
        if (node.field === "condition" && node.axis && width < 640) {
          Object.assign(node.axis, { labelExpr: LAST_APART, labelLineHeight: 11, labelFontSize: 10 });
        }
        if (node.legend?.columns) {
          const names = node.legend.values ?? node.scale?.domain ?? rows.map((row) => row[node.field] ?? "");
          const longest = Math.max(...names.map((name) => String(name).length));
          const columns = Math.floor((width - 60) / (7 * longest + 30));
          Object.assign(node.legend, {
            columns: Math.max(1, Math.min(8, columns)), labelLimit: Math.min(node.legend.labelLimit ?? 480, width - 90),
          });
        }
        Object.values(node).forEach(visit);
      }
    })(copy);
    return copy;
  }

  async function draw(element) {
    const chart = page.charts[Number(element.dataset.chart)];
    const rows = rowsFor(chart);
    const figure = element.closest("figure");
    if (figure) figure.hidden = !rows.length;
    element.dataset.drawn = rows.length ? "yes" : "empty";
    if (!rows.length) {
      views.push({ chart, element });
      return;
    }
    const spec = { ...dressed(chart, element.clientWidth, rows), datasets: { ...chart.spec.datasets, [chart.table]: rows }, description: chart.label };
    const result = await window.vegaEmbed(element, spec, {
      actions: false, renderer: "svg", config: config(), tooltip: { theme: "custom" },
    });
    const view = result.view;
    views.push({ view, chart, element, result });
    if (takes(chart, "chosen")) view.signal("chosen", chosen);
    if (takes(chart, "tonull")) view.signal("tonull", toNull);
    view.addEventListener("click", (_event, item) => {
      const model = item?.datum?.model;
      if (model) choose(model === chosen ? "" : model);
    });
    await view.runAsync();
  }

  function takes(chart, parameter) {
    return (chart.spec.params ?? []).some(({ name }) => name === parameter);
  }

  // Charts in sight first, the others one at a time, so that the page answers at once.
  async function drawAll() {
    document.documentElement.dataset.charts = "drawing";
    while (waiting.length) {
      const height = window.innerHeight;
      const inSight = waiting.findIndex((element) => {
        const box = element.getBoundingClientRect();
        return box.bottom > 0 && box.top < height;
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
    document.documentElement.dataset.charts = "drawn";
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

  function choose(model) {
    chosen = model;
    // The address keeps the choice over a reload, and in a link.
    history.replaceState(null, "", model ? `#model=${encodeURIComponent(model)}` : "#");
    for (const button of document.querySelectorAll("nav.models button[data-model]")) {
      button.setAttribute("aria-pressed", String(button.dataset.model === chosen));
    }
    for (const element of document.querySelectorAll("[data-of-model]")) {
      const own = element.dataset.ofModel === chosen;
      element.classList.toggle("chosen", chosen !== "" && own);
      element.classList.toggle("unchosen", chosen !== "" && !own);
    }
    for (const place of document.querySelectorAll("[data-shown-model]")) {
      place.textContent = chosen || firstModel();
    }
    for (const { view, chart } of views) {
      if (view && takes(chart, "chosen")) view.signal("chosen", chosen).runAsync();
    }
    document.getElementById("status").textContent = chosen ? `Showing ${chosen}` : "Showing every model";
    redraw(({ chart }) => chart.follows === "filter");
  }

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
  }

  const system = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", () => {
    setTheme(system.matches ? "dark" : "light");
    paintKeys();
    redraw(() => true);
  });

  function paintKeys() {
    for (const mark of document.querySelectorAll(".key i[data-hue]")) {
      mark.style.background = hues(Number(mark.dataset.hue) + 1).at(-1);
    }
  }

  document.querySelector("nav.models").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "theme") {
      setTheme(theme() === "dark" ? "light" : "dark");
      paintKeys();
      redraw(() => true);
    } else {
      choose(button.dataset.model === chosen ? "" : button.dataset.model);
    }
  });
  document.getElementById("tonull")?.addEventListener("change", (event) => {
    toNull = event.target.checked;
    for (const { view, chart } of views) {
      if (view && takes(chart, "tonull")) view.signal("tonull", toNull).runAsync();
    }
  });
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  paintKeys();
  for (const place of document.querySelectorAll("[data-shown-model]")) place.textContent = firstModel();
  waiting.push(...document.querySelectorAll("[data-chart]"));
  const asked = new URLSearchParams(location.hash.slice(1)).get("model");
  window.depthsweep = { choose, views };
  document.documentElement.dataset.ready = "yes";
  drawAll().then(() => {
    if (asked && page.models.includes(asked)) choose(asked);
  });
})();
