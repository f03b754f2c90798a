// What the pages do with JavaScript. All of them are complete without it.
(() => {
  "use strict";

  // ---- times: relative, and counting

  const UNITS = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

  function spanned(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const at = UNITS.findIndex(([, size]) => whole >= size);
    if (at < 0) return "0s";
    const [unit, size] = UNITS[at];
    const first = Math.floor(whole / size) + unit;
    const rest = at + 1 < UNITS.length ? Math.floor((whole % size) / UNITS[at + 1][1]) : 0;
    return rest ? `${first} ${rest}${UNITS[at + 1][0]}` : first;
  }

  function tell(time, now) {
    const at = new Date(time.dateTime);
    const seconds = (now - at) / 1000;
    let text;
    if (time.hasAttribute("data-local")) {
      text = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    } else if (time.hasAttribute("data-since")) {
      text = spanned(seconds);
    } else {
      text = seconds >= 0 ? (seconds < 1 ? "now" : `${spanned(seconds)} ago`) : `in ${spanned(-seconds)}`;
    }
    if (time.textContent !== text) time.textContent = text;
  }

  function tellTimes() {
    const now = new Date();
    for (const time of document.querySelectorAll("time[datetime]")) tell(time, now);
  }

  // ---- theme

  const theme = document.getElementById("theme");
  const THEMES = ["auto", "dark", "light"];

  function currentTheme() {
    return document.documentElement.dataset.theme || "auto";
  }

  function showTheme() {
    theme.textContent = `Theme: ${currentTheme()}`;
  }

  theme.hidden = false;
  showTheme();
  theme.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try { localStorage.setItem("durable-theme", next); } catch { /* it holds for this page */ }
    showTheme();
    for (const box of document.querySelectorAll("[data-chart]")) drop(box);
    draw();
  });

  // ---- keys

  function rows() {
    return [...document.querySelectorAll("[data-row]")].map((row) => (row.matches("summary") ? row : row.querySelector("a.id")));
  }

  function move(step) {
    const all = rows();
    if (!all.length) return;
    const row = document.activeElement?.closest("[data-row]");
    const at = row ? all.findIndex((each) => row.contains(each)) : -1;
    const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step));
    all[next].focus();
    all[next].scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape") {
      const open = document.querySelector("details.act[open]");
      if (open) { open.open = false; open.querySelector("summary").focus(); } else if (typing) event.target.blur();
      return;
    }
    if (typing) return;
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "x") {
      const box = document.activeElement?.closest("[data-row]")?.querySelector("input[type=checkbox]");
      if (box) box.checked = !box.checked;
    } else if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (!search) return;
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.act[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });

  // A choice in the search is a search.
  document.addEventListener("change", (event) => {
    if (event.target.matches("form.search select")) event.target.form.requestSubmit();
  });

  // ---- charts

  const charts = new WeakMap();

  function drop(box) {
    charts.get(box)?.destroy();
    charts.delete(box);
  }

  function color(name) {
    const probe = document.createElement("span");
    probe.className = `c-${name}`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  function draw() {
    if (!window.uPlot) return;
    for (const box of document.querySelectorAll("[data-chart]")) {
      const points = JSON.parse(box.dataset.points);
      const column = Number(box.dataset.chart);
      const data = [points.map((point) => point[0]), points.map((point) => point[column])];
      const known = charts.get(box);
      if (known) { known.setData(data); continue; }
      const ink = color("dim"), line = color("line"), accent = color(column === 1 ? "info" : "warn");
      const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "11px system-ui" };
      charts.set(box, new uPlot({
        width: box.querySelector(".plot").clientWidth, height: 160, cursor: { y: false }, legend: { show: false },
        scales: { y: { range: (u, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
        axes: [axis, { ...axis, size: 56, values: (u, ticks) => ticks.map((tick) => column === 2 ? spanned(tick) : tick) }],
        series: [{}, { stroke: accent, width: 1.5, fill: accent.replace("rgb(", "rgba(").replace(")", ", 0.12)"), points: { show: points.length < 3 } }],
      }, data, box.querySelector(".plot")));
    }
  }

  window.addEventListener("resize", () => {
    for (const box of document.querySelectorAll("[data-chart]")) {
      charts.get(box)?.setSize({ width: box.querySelector(".plot").clientWidth, height: 160 });
    }
  });

  // ---- the stream

  const stream = document.getElementById("stream");

  function say(state) {
    if (!stream) return;
    stream.hidden = false;
    stream.textContent = state;
    stream.dataset.state = state;
  }

  document.addEventListener("htmx:sse:after:connection", () => say("live"));
  document.addEventListener("htmx:sse:error", () => say("reconnecting"));
  document.addEventListener("htmx:sse:before:connection", () => { if (stream?.dataset.state !== "live") say("connecting"); else say("reconnecting"); });
  document.addEventListener("htmx:sse:after:message", () => { tellTimes(); draw(); });

  tellTimes();
  draw();
  setInterval(tellTimes, 1000);
})();
