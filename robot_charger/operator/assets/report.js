"use strict";
(() => {
  const main = document.querySelector("main");
  const full = [0, Number(main.dataset.span)];
  let view = full.slice();
  const charts = [...document.querySelectorAll("svg.t")];
  const curves = new Map(charts.filter(c => c.dataset.curves).map(c => [c, Object.values(JSON.parse(c.dataset.curves))]));
  const states = new Map(charts.filter(c => c.dataset.states).map(c => [c, JSON.parse(c.dataset.states)]));

  function ticks([begin, end]) {
    const span = end - begin;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600].find(s => span / s <= 10) || 7200;
    let html = "";
    for (let v = Math.ceil(begin / step) * step; v <= end; v += step)
      html += `<span style="left:${100 * (v - begin) / span}%">${v.toFixed(step < 1 ? 1 : 0)} s</span>`;
    return html;
  }
  function label(chart, list) {  // names of the states, where there is room
    const place = t => 100 * (Math.min(view[1], Math.max(view[0], t)) - view[0]) / (view[1] - view[0]);
    const names = chart.previousElementSibling;
    names.textContent = "";
    list.forEach(([begin, name], k) => {
      const left = place(begin), right = place(k + 1 < list.length ? list[k + 1][0] : Number(chart.dataset.end));
      if (right - left < 3) return;
      const span = document.createElement("span");
      span.textContent = name;
      span.style.left = `${left}%`;
      span.style.width = `${right - left}%`;
      names.append(span);
    });
  }
  function show(next) {
    view = next;
    for (const c of charts) {
      const box = c.viewBox.baseVal;
      c.setAttribute("viewBox", `${view[0]} 0 ${view[1] - view[0]} ${box.height}`);
    }
    for (const a of document.querySelectorAll(".axis")) a.innerHTML = ticks(view);
    for (const [chart, list] of states) label(chart, list);
  }
  const timeAt = (chart, event) => {
    const box = chart.getBoundingClientRect();
    return view[0] + (view[1] - view[0]) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  function last(list, t) {  // newest entry not after t
    let low = 0, high = list.length;
    while (low < high) { const mid = (low + high) >> 1; if (list[mid][0] <= t) low = mid + 1; else high = mid; }
    return low ? list[low - 1] : null;
  }
  function read(t) {
    for (const [chart, list] of curves) {
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("x1", t); cursor.setAttribute("x2", t);
      const outputs = chart.parentElement.querySelectorAll(".legend output");
      list.forEach((points, k) => { const p = last(points, t); outputs[k].textContent = p ? `${p[1]} ${chart.dataset.unit}` : ""; });
    }
    for (const [chart, list] of states) { const s = last(list, t); chart.nextElementSibling.textContent = s ? s[1] : ""; }
  }
  for (const chart of charts) {
    let start = null, mark = null;
    chart.addEventListener("pointerdown", e => {
      start = timeAt(chart, e);
      mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      mark.setAttribute("class", "drag"); mark.setAttribute("y", 0); mark.setAttribute("height", 1000);
      chart.append(mark); chart.setPointerCapture(e.pointerId);
    });
    chart.addEventListener("pointermove", e => {
      const t = timeAt(chart, e);
      read(t);
      if (mark) { mark.setAttribute("x", Math.min(start, t)); mark.setAttribute("width", Math.abs(t - start)); }
    });
    chart.addEventListener("pointerup", e => {
      const t = timeAt(chart, e);
      if (mark) mark.remove();
      mark = null;
      if (start !== null && Math.abs(t - start) > (view[1] - view[0]) / 100) show([Math.min(start, t), Math.max(start, t)]);
      start = null;
    });
    chart.addEventListener("dblclick", () => show(full.slice()));
  }
  for (const input of document.querySelectorAll(".search")) {
    const column = input.closest(".column");
    const rows = [...column.querySelectorAll(".messages tr")].slice(1);
    const texts = rows.map(r => r.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, k) => {
        const away = !words.every(w => texts[k].includes(w));
        row.classList.toggle("away", away);
        shown += !away;
      });
      column.querySelector(".count").textContent = `${shown} of ${rows.length}`;
    });
  }
  show(view);
  document.documentElement.dataset.ready = "yes";
})();
