"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const margin = {top: 8, right: 30, bottom: 24, left: 56};

  const timeText = ms => ms == null ? "–" : ms >= 1000 ? trim(ms / 1000) + " s" : trim(ms) + " ms";
  const trim = n => String(Number(n.toPrecision(3)));
  const countText = n => n < 10 ? trim(n) : Math.round(n).toLocaleString("en");
  const shortCount = n => n >= 1e6 ? trim(n / 1e6) + "M" : n >= 1e4 ? trim(n / 1e3) + "k" : countText(n);
  const pad = n => String(Math.floor(n)).padStart(2, "0");
  const clock = s => s < 120 ? trim(s) + " s" : s < 7200 ? Math.floor(s / 60) + ":" + pad(s % 60) + " min" : Math.floor(s / 3600) + ":" + pad(s % 3600 / 60) + " h";

  const node = (name, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };
  const label = (parent, x, y, anchor, text) => {
    node("text", {x, y, "text-anchor": anchor}, parent).textContent = text;
  };

  // A scale maps values to pixels and knows where its ticks are.
  const linear = (to, from0, from1, ticks) => {
    const rough = (to || 1) / ticks, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find(m => m * unit >= rough) * unit;
    const end = Math.max(Math.ceil((to || 1) / step - 1e-9) * step, step), at = v => from0 + v / end * (from1 - from0);
    const marks = [];
    for (let v = 0; v <= end * 1.0001; v += step) marks.push(v);
    return {at, marks, end};
  };
  // The marks of a logarithmic scale are as dense as leaves this many pixels between two.
  const logarithmic = (low, high, from0, from1, space) => {
    const a = Math.log10(low), b = Math.max(Math.log10(high), a + .3);
    const at = v => from0 + (Math.log10(v) - a) / (b - a) * (from1 - from0);
    const marksOf = (mantissas, decades) => {
      const marks = [];
      for (let e = Math.floor(a / decades) * decades; e <= b; e += decades) {
        for (const m of mantissas) {
          const v = Number((m * 10 ** e).toPrecision(2)), inside = Math.log10(v);
          if (inside >= a - 1e-9 && inside <= b + 1e-9) marks.push(v);
        }
      }
      return marks;
    };
    const choices = [[[1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], 1], [[1, 1.5, 2, 3, 5, 7], 1], [[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 3]];
    const fits = marks => marks.every((v, i) => i === 0 || Math.abs(at(v) - at(marks[i - 1])) >= space);
    const marks = choices.map(c => marksOf(...c)).find(fits) || [];
    return {at, marks};
  };

  const chart = (id, height, series, draw) => {
    const figure = document.getElementById(id);
    if (!figure) return;
    const legend = document.createElement("div");
    legend.className = "legend";
    for (const s of series) {
      const item = document.createElement("span");
      item.textContent = s.name;
      item.className = s.kind || "";
      item.style.setProperty("--c", `var(--${s.color})`);
      legend.append(item);
    }
    const svg = node("svg", {role: "img", "aria-label": figure.querySelector("figcaption").textContent});
    figure.append(legend, svg);
    const redraw = () => {
      const width = Math.max(svg.clientWidth, 200);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      svg.replaceChildren();
      draw(svg, {left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom});
    };
    new ResizeObserver(redraw).observe(figure);
  };

  const yAxis = (svg, box, scale, text) => {
    for (const v of scale.marks) {
      const y = scale.at(v);
      node("line", {class: "grid", x1: box.left, x2: box.right, y1: y, y2: y}, svg);
      label(svg, box.left - 8, y + 4, "end", text(v));
    }
  };
  const timeSteps = [.1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const timeAxis = (svg, box, intervals) => {
    const last = intervals[intervals.length - 1], end = last.start_seconds + last.duration_seconds;
    const at = s => box.left + s / end * (box.right - box.left);
    const step = timeSteps.find(t => t / end * (box.right - box.left) >= 80) || end;
    node("line", {class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom}, svg);
    for (let i = 0; i * step <= end * 1.0001; i++) {
      label(svg, at(i * step), box.bottom + 17, "middle", clock(i * step));
    }
    return at;
  };

  // hover shows the rows of the item whose centre is nearest to the pointer.
  const hover = (svg, box, items, centre, title, rows) => {
    const cross = node("line", {class: "cross", y1: box.top, y2: box.bottom, visibility: "hidden"}, svg);
    svg.onpointermove = event => {
      const x = event.clientX - svg.getBoundingClientRect().left;
      let nearest = 0;
      items.forEach((item, i) => { if (Math.abs(centre(item) - x) < Math.abs(centre(items[nearest]) - x)) nearest = i; });
      const item = items[nearest], at = centre(item);
      cross.setAttribute("x1", at); cross.setAttribute("x2", at); cross.setAttribute("visibility", "visible");
      const head = document.createElement("b");
      head.textContent = title(item);
      tip.replaceChildren(head, ...rows(item).map(([name, value, color]) => {
        const row = document.createElement("div"), left = document.createElement("span"), right = document.createElement("span");
        row.style.setProperty("--c", `var(--${color})`);
        left.textContent = name; right.textContent = value;
        row.append(left, right);
        return row;
      }));
      tip.hidden = false;
      const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = Math.max(Math.min(event.pageX + 16, right), 8) + "px";
      tip.style.top = event.pageY + 16 + "px";
    };
    svg.onpointerleave = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
  };

  const middle = i => i.start_seconds + i.duration_seconds / 2;
  const span = i => clock(i.start_seconds) + " to " + clock(i.start_seconds + i.duration_seconds);

  const timeLines = (id, height, series) => {
    const rows = data.intervals.filter(i => series.some(s => i[s.key] != null));
    if (!rows.length) return;
    const values = rows.flatMap(i => series.map(s => i[s.key])).filter(v => v != null);
    const low = Math.max(Math.min(...values), .001), high = Math.max(...values, low);
    chart(id, height, series, (svg, box) => {
      const y = logarithmic(low / 1.25, high * 1.25, box.bottom, box.top, 26);
      yAxis(svg, box, y, timeText);
      const x = timeAxis(svg, box, data.intervals);
      for (const s of series) {
        let path = "", pen = "M";
        for (const i of data.intervals) {
          if (i[s.key] == null) { pen = "M"; continue; }
          path += `${pen}${x(middle(i)).toFixed(1)},${y.at(Math.max(i[s.key], low)).toFixed(1)}h0`; // draws a dot if it stands alone
          pen = "L";
        }
        node("path", {class: "line " + (s.kind || ""), d: path, style: `--c: var(--${s.color})`}, svg);
      }
      hover(svg, box, rows, i => x(middle(i)), span, i => series.map(s => [s.name, timeText(i[s.key]), s.color]));
    });
  };

  const answers = () => {
    const stack = [
      {key: "succeeded", name: "2xx", color: "ok", kind: "filled"},
      {key: "rate_limited", name: "429", color: "limited", kind: "filled"},
      {key: "failed", name: "failed", color: "failed", kind: "filled"},
      {key: "held_back", name: "held back", color: "held", kind: "filled"},
    ].filter(s => s.key === "succeeded" || data.intervals.some(i => i[s.key] > 0));
    const asked = {key: "asked_per_second", name: "asked", color: "asked", kind: "dashed"};
    const top = Math.max(...data.intervals.map(i => Math.max(i.asked_per_second, stack.reduce((sum, s) => sum + i[s.key] / i.duration_seconds, 0))));
    chart("rate", 230, [...stack, asked], (svg, box) => {
      const y = linear(top, box.bottom, box.top, 4);
      yAxis(svg, box, y, shortCount);
      const x = timeAxis(svg, box, data.intervals);
      let path = "";
      for (const i of data.intervals) {
        const x0 = x(i.start_seconds), x1 = x(i.start_seconds + i.duration_seconds), gap = x1 - x0 > 6 ? 1 : 0;
        let sum = 0;
        for (const s of stack) {
          const n = i[s.key] / i.duration_seconds;
          if (n > 0) node("rect", {class: "area", x: x0, width: Math.max(x1 - x0 - gap, .5), y: y.at(sum + n), height: y.at(sum) - y.at(sum + n), style: `--c: var(--${s.color})`}, svg);
          sum += n;
        }
        path += `${path ? "L" : "M"}${x0.toFixed(1)},${y.at(i.asked_per_second).toFixed(1)}L${x1.toFixed(1)},${y.at(i.asked_per_second).toFixed(1)}`;
      }
      node("path", {class: "line dashed", d: path, style: "--c: var(--asked)"}, svg);
      hover(svg, box, data.intervals, i => x(middle(i)), span, i => [
        ...stack.map(s => [s.name, countText(i[s.key] / i.duration_seconds) + "/s", s.color]),
        [asked.name, countText(i.asked_per_second) + "/s", asked.color],
      ]);
    });
  };

  const histogram = () => {
    const buckets = data.histogram;
    if (!buckets.length) return;
    const series = [{name: "response time", color: "p99", kind: "filled"}, {name: "service time", color: "service"}];
    const top = Math.max(...buckets.map(b => Math.max(b.response_time, b.service_time)));
    chart("histogram", 230, series, (svg, box) => {
      const y = linear(top, box.bottom, box.top, 4);
      const x = logarithmic(buckets[0].from_ms, buckets[buckets.length - 1].to_ms, box.left, box.right, 62);
      yAxis(svg, box, y, shortCount);
      node("line", {class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom}, svg);
      for (const v of x.marks) label(svg, x.at(v), box.bottom + 17, "middle", timeText(v));
      let path = "";
      for (const b of buckets) {
        const x0 = x.at(b.from_ms), x1 = x.at(b.to_ms);
        // Every non-empty bucket stays visible: the rare slow requests matter most.
        const height = b.response_time ? Math.max(box.bottom - y.at(b.response_time), 2) : 0;
        if (height) node("rect", {class: "area", x: x0, width: Math.max(x1 - x0 - 1, .5), y: box.bottom - height, height, style: "--c: var(--p99)"}, svg);
        path += `${path ? "L" : "M"}${x0.toFixed(1)},${y.at(b.service_time).toFixed(1)}L${x1.toFixed(1)},${y.at(b.service_time).toFixed(1)}`;
      }
      node("path", {class: "line", d: path, style: "--c: var(--service)"}, svg);
      hover(svg, box, buckets, b => (x.at(b.from_ms) + x.at(b.to_ms)) / 2, b => timeText(b.from_ms) + " to " + timeText(b.to_ms), b => [
        [series[0].name, countText(b.response_time), series[0].color], [series[1].name, countText(b.service_time), series[1].color],
      ]);
    });
  };

  timeLines("latency", 260, [
    {key: "response_p50_ms", name: "p50", color: "p50"},
    {key: "response_p90_ms", name: "p90", color: "p90"},
    {key: "response_p99_ms", name: "p99", color: "p99"},
    {key: "service_p99_ms", name: "service time p99", color: "service", kind: "dashed"},
  ]);
  answers();
  histogram();
  timeLines("watch", 200, [
    {key: "watch_delay_p50_ms", name: "p50", color: "p50"},
    {key: "watch_delay_p99_ms", name: "p99", color: "p99"},
  ]);
})();
