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
    light: ["#1f5fbf", "#c8501e", "#14805e", "#8a3f9e", "#a07400", "#c02f63", "#52616f", "#2a8fa8"],
    dark: ["#7fb0ff", "#ff9a66", "#4fd0a3", "#d193e6", "#e6bd4f", "#ff85ac", "#a9b6c4", "#66cbe3"],
  };
  // White text stands on these, in both themes.
  const STRONG = ["#1f5fbf", "#b5480f", "#126b4f", "#7a3590", "#7d5a00", "#a8265a", "#55606c", "#1f7489"];
  // Names that mean the same in every chart keep one colour in every chart.
  const MEANINGS = {
    finished: 2, persists: 2, diverged: 5, reverses: 5, failed: 1, collapses: 1, unfinished: 4,
    insufficient: 6, pending: 6,
  };

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
      legend: { labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontSize: 11, symbolType: "circle" },
      rule: { color: soft },
      text: { color: ink },
      range: { category: HUES[theme()] },
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
  // A legend is laid out in columns, which on a phone must be few.
  function dressed(chart, width) {
    const copy = structuredClone(chart.spec);
    const columns = Math.max(1, Math.min(5, Math.floor(width / 130)));
    const hues = chart.table === "persistence" ? STRONG : HUES[theme()];
    (function visit(node) {
      if (Array.isArray(node)) node.forEach(visit);
      else if (node && typeof node === "object") {
        const domain = node.color?.scale?.domain;
        if (Array.isArray(domain) && domain.every((name) => name in MEANINGS)) {
          node.color.scale.range = domain.map((name) => hues[MEANINGS[name]]);
        }
        if (node.legend?.columns) node.legend.columns = columns;
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
    const spec = { ...dressed(chart, element.clientWidth), datasets: { [chart.table]: rows }, description: chart.label };
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
      mark.style.background = HUES[theme()][Number(mark.dataset.hue) % HUES.light.length];
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
