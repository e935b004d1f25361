"use strict";
// Everything from the profile goes in as text nodes or attributes' values: never as markup.
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main"), tip = document.getElementById("tip");
  const header = data.header, end = Math.max(data.end_ms, 1);

  const fill = (node, attributes, children) => {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
      else if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter(c => c !== null && c !== undefined));
    return node;
  };
  const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const grouped = n => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const bytes = n => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let u = 0;
    while (n >= 999.5 && u < units.length - 1) { n /= 1000; u++; }
    return (u === 0 || n >= 99.95 ? Math.round(n) : n.toFixed(1)) + " " + units[u];
  };
  const time = ms => ms < 1000 ? ms + " ms" : (ms / 1000).toFixed(ms < 100000 ? 2 : 0) + " s";
  const share = (part, whole) => whole === 0 ? "–" : (100 * part / whole).toFixed(part === whole ? 0 : 1) + " %";
  const phaseName = name => name === "" ? "start" : name;
  const phaseAt = ms => {
    let name = "start";
    for (const p of data.phases) if (p.at_ms <= ms) name = phaseName(p.name);
    return name;
  };
  const parts = path => {
    const cut = path.lastIndexOf("/") + 1;
    return [path.slice(0, cut), path.slice(cut)];
  };

  // From early to late, readable on light and dark.
  const ramp = [[37, 99, 235], [20, 184, 166], [132, 204, 22], [234, 179, 8], [239, 68, 68]];
  const colour = ms => {
    const x = Math.min(ms / end, 1) * (ramp.length - 1), i = Math.min(Math.floor(x), ramp.length - 2);
    const mix = ramp[i].map((c, k) => Math.round(c + (ramp[i + 1][k] - c) * (x - i)));
    return "rgb(" + mix.join(",") + ")";
  };

  const show = (event, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8), y = event.clientY - box.height - 12;
    tip.style.left = Math.max(x, 8) + "px";
    tip.style.top = (y < 8 ? event.clientY + 18 : y) + "px";
  };
  const hide = () => { tip.hidden = true; };
  const tipped = text => ({ pointermove: e => show(e, text()), pointerleave: hide });

  const card = (title, note, ...children) =>
    el("section", { class: "card" }, el("h2", {}, title), note ? el("p", { class: "note" }, note) : null, ...children);
  const halves = el("div", { class: "halves" });
  const files = n => grouped(n) + (n === 1 ? " file" : " files");

  // What makes the figures less than the truth.
  const warn = text => main.append(el("div", { class: "card warn", role: "alert" }, text));

  main.append(el("header", {},
    el("h1", {}, header.image || header.command.join(" ") || "Profile"),
    el("p", { class: "lead" }, [header.platform, header.started_at, "until " + header.until,
      header.recorder.name].filter(Boolean).join(" · "))));
  if (header.lost_events > 0) warn(grouped(header.lost_events) + " events were lost: this profile is incomplete.");
  if (header.until.includes("incomplete")) warn("The recording did not reach its end: " + header.until);
  const unmapped = Object.values(header.unmapped || {}).reduce((a, b) => a + b, 0);
  if (unmapped > 0) {
    warn(grouped(unmapped) + " events belong to no file that could be found: " +
      Object.entries(header.unmapped).map(([device, n]) => grouped(n) + " on " + device).join(", "));
  }

  const tile = (value, label) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, label));
  const ready = data.phases[data.phases.length - 1];
  const written = data.writes.reduce((sum, w) => sum + w.size, 0);
  main.append(el("div", { class: "tiles" },
    tile(bytes(data.total.touched), "touched"),
    tile(share(data.total.touched, data.total.size), "of " + bytes(data.total.size) + " in the files"),
    tile(grouped(data.total.files), "files"),
    ready.name ? tile(time(ready.at_ms), "until " + ready.name) : tile(time(end), "until the last touch"),
    tile(bytes(written), "written")));

  // The timeline is drawn to the width that there is, so that its text keeps its size.
  const timeline = el("div", {});
  main.append(card("Bytes touched over time", "First touches, added up. Bands are the phases of the start.", timeline));
  const drawTimeline = () => {
    const w = timeline.clientWidth || 800, h = w < 600 ? 220 : 280, left = 58, right = 14, top = 46, bottom = 28;
    const total = Math.max(data.total.touched, 1);
    const x = ms => left + (w - left - right) * ms / end, y = n => h - bottom - (h - top - bottom) * n / total;
    const root = svg("svg", { width: w, height: h, viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Bytes touched over time" });
    // Where the next name may begin, in each of two rows: short phases stand close together.
    const free = [0, 0];
    data.phases.forEach((p, i) => {
      const until = i + 1 < data.phases.length ? data.phases[i + 1].at_ms : end;
      const a = x(p.at_ms), b = Math.max(x(until), a);
      if (i % 2 === 0) root.append(svg("rect", { class: "band", x: a, y: top, width: b - a, height: h - top - bottom }));
      if (i > 0) root.append(svg("line", { class: "mark", x1: a, x2: a, y1: top - 6, y2: h - bottom }));
      const name = phaseName(p.name), room = name.length * 7.5;
      const at = Math.min(a + 4, w - right - room), row = free.findIndex(x => at >= x);
      if (row >= 0) {
        root.append(svg("text", { class: "name", x: at, y: top - 10 - 16 * row }, name));
        free[row] = at + room + 8;
      }
    });
    const nice = (max, n) => {
      const raw = max / n, power = 10 ** Math.floor(Math.log10(raw)), lead = raw / power;
      return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
    };
    for (let v = 0, step = nice(total, 4); v <= total; v += step) {
      root.append(svg("line", { class: "grid", x1: left, x2: w - right, y1: y(v), y2: y(v) }),
        svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, bytes(v)));
    }
    for (let v = 0, step = Math.max(nice(end, w < 600 ? 4 : 8), 1); v <= end; v += step) {
      root.append(svg("text", { x: x(v), y: h - 8, "text-anchor": v === 0 ? "start" : x(v) > w - 40 ? "end" : "middle" },
        end < 2000 ? v + " ms" : +(v / 1000).toFixed(2) + " s"));
    }
    let path = "", last = 0;
    for (const [ms, n] of data.timeline) {
      path += path ? `H${x(ms).toFixed(1)}V${y(n).toFixed(1)}` : `M${x(ms).toFixed(1)} ${y(n).toFixed(1)}`;
      last = n;
    }
    path += `H${x(end).toFixed(1)}`;
    root.append(svg("path", { class: "under", d: path + `V${y(0)}H${x(0)}Z` }), svg("path", { class: "curve", d: path }));
    const cross = svg("g", { visibility: "hidden" }), line = svg("line", { class: "cross", y1: top, y2: h - bottom });
    const dot = svg("circle", { class: "dot", r: 5 });
    cross.append(line, dot);
    root.append(cross);
    root.addEventListener("pointermove", e => {
      const ms = Math.min(Math.max((e.clientX - root.getBoundingClientRect().left - left) / (w - left - right), 0), 1) * end;
      let n = 0;
      for (const [at, sum] of data.timeline) if (at <= ms) n = sum; else break;
      line.setAttribute("x1", x(ms));
      line.setAttribute("x2", x(ms));
      dot.setAttribute("cx", x(ms));
      dot.setAttribute("cy", y(n));
      cross.setAttribute("visibility", "visible");
      show(e, `${time(Math.round(ms))} · ${phaseAt(ms)}\n${bytes(n)} (${share(n, last)})`);
    });
    root.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); hide(); });
    timeline.replaceChildren(root);
  };

  const bars = (rows, width) => el("div", { class: "bars" }, ...rows.map(r => {
    const inner = el("i", {});
    inner.style.width = (100 * width(r)).toFixed(2) + "%";
    return el("div", { class: "bar" },
      el("div", { class: "label" }, el("span", {}, r.name), el("span", {}, r.text)),
      el("div", { class: "track" }, inner));
  }));
  const part = (a, b) => b === 0 ? 0 : a / b;
  const most = rows => Math.max(...rows.map(r => r.touched), 1);
  const figures = g => ({ ...g, text: `${bytes(g.touched)} of ${bytes(g.size)} · ${files(g.files)}` });

  main.append(halves);
  halves.append(card("Phases", "Bytes by the phase in which they were first touched.",
    bars(data.phases.map(p => ({ ...p, name: phaseName(p.name), text: `${bytes(p.touched)} · from ${time(p.at_ms)}` })),
      p => part(p.touched, data.total.touched))));
  halves.append(card("File sizes", "The bar is the touched share of the files' bytes.",
    bars(data.sizes.map(g => figures({ ...g, name: g.name.replace("<=", "up to").replace(">", "above") })),
      g => part(g.touched, g.size))));
  const groups = (title, note, list) => {
    if (!list || list.length === 0) return;
    const largest = most(list);
    halves.append(card(title, note, bars(list.slice(0, 16).map(figures), g => g.touched / largest)));
  };
  groups("Folders", "Most touched first; a folder is shown without what is shown by itself below it.", data.folders);
  groups("Layers", "Lowest first.", data.layers);
  if (data.writes.length > 0) {
    const largest = Math.max(...data.writes.map(w => w.size), 1);
    halves.append(card("Written", "What the start wrote, by kind and phase.", bars(data.writes.map(w => ({
      name: w.class + (w.phase === null ? "" : " · " + phaseName(w.phase)), size: w.size,
      text: `${bytes(w.size)} · ${files(w.files)}` })), w => w.size / largest)));
  }
  if (data.origins.length > 1) groups("Origins", "Image, mounted volumes, files injected by the runtime.", data.origins);

  // Where in each file the touched bytes lie.
  if (data.heat.length > 0) {
    const stops = [...Array(60).keys()].map(i =>
      svg("rect", { x: i, y: 0, width: 1.1, height: 1, fill: colour(end * i / 59) }));
    const legend = el("div", { class: "legend" }, "0 s",
      svg("svg", { viewBox: "0 0 60 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...stops), time(end));
    const rows = data.heat.map(f => {
      const [dir, name] = parts(f.path);
      const cell = Math.max(Math.ceil(f.size / 240), 1), width = f.size / cell || 1;
      const strip = svg("svg", { viewBox: `0 0 ${width} 1`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${share(f.touched, f.size)} touched` });
      for (const [at, cells, ms, percent] of f.cells) {
        strip.append(svg("rect", { x: at, y: 0, width: Math.min(cells, Math.max(width - at, 0.5)), height: 1,
          fill: colour(ms), "fill-opacity": (0.35 + 0.65 * percent / 100).toFixed(2),
          on: tipped(() => `${bytes(at * cell)} – ${bytes(Math.min((at + cells) * cell, f.size))}\n` +
            `from ${time(ms)} (${phaseAt(ms)}) · ${percent} % of it`) }));
      }
      return el("div", { class: "heat" },
        el("div", { class: "path", title: f.path }, name, " ", el("small", {}, dir)), strip,
        el("div", { class: "n" }, `${bytes(f.touched)} of ${bytes(f.size)}`));
    });
    main.append(card("Where files were touched",
      `The ${data.heat.length} most touched files from their first byte to their last, coloured by the time of the first touch; pale where little of a piece was.`,
      legend, ...rows));
  }

  const pathCell = path => {
    const [dir, name] = parts(path);
    return el("td", { class: "text" }, el("span", { class: "dir" }, dir), name);
  };
  if (data.sparse.length > 0) {
    const rows = data.sparse.slice(0, 20).map(s => el("tr", {}, pathCell(s.path),
      el("td", {}, share(s.touched, s.size)), el("td", {}, bytes(s.touched)), el("td", {}, bytes(s.size)),
      el("td", { class: "wide" }, grouped(s.ranges))));
    main.append(card("Sparsely read", "Large files by the bytes that were not touched: what fetching whole files would waste.",
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { class: "text" }, "File"), el("th", {}, "Share"),
        el("th", {}, "Touched"), el("th", {}, "Size"), el("th", { class: "wide" }, "Ranges"))), el("tbody", {}, ...rows))));
  }

  // All files.
  const layered = (data.layers || []).length > 0;
  const columns = [
    { name: "File", key: 0, text: true }, { name: "Touched", key: 2, show: f => bytes(f[2]) },
    { name: "Size", key: 1, show: f => bytes(f[1]) },
    { name: "Share", key: f => part(f[2], f[1]), show: f => share(f[2], f[1]), wide: true },
    { name: "Ranges", key: 4, show: f => grouped(f[4]), wide: true }, { name: "First touch", key: 3, show: f => time(f[3]) },
    { name: "Origin", key: 5, show: f => f[5], wide: true },
    ...(layered ? [{ name: "Layer", key: f => f[6] === null ? -1 : f[6], show: f => f[6] === null ? "–" : f[6], wide: true }] : []),
  ];
  const state = { column: 1, down: true, rows: 50 };
  const search = el("input", { type: "search", placeholder: "Filter by path", "aria-label": "Filter by path" });
  const origin = el("select", { "aria-label": "Origin" }, el("option", { value: "" }, "all origins"),
    ...data.origins.map(o => el("option", { value: o.name }, o.name)));
  const phase = el("select", { "aria-label": "Phase" }, el("option", { value: "" }, "all phases"),
    ...data.phases.map((p, i) => el("option", { value: i }, phaseName(p.name))));
  const body = el("tbody", {}), count = el("span", { class: "n" });
  const more = el("button", { class: "more", type: "button", on: { click: () => { state.rows += 200; list(); } } }, "Show more");
  const value = (c, f) => typeof c.key === "function" ? c.key(f) : f[c.key];
  const heads = columns.map((c, i) => el("th", { class: (c.text ? "text" : "") + (c.wide ? " wide" : ""), scope: "col" },
    el("button", { type: "button", on: { click: () => {
      state.down = state.column === i ? !state.down : !c.text;
      state.column = i;
      list();
    } } }, c.name)));
  const list = () => {
    const text = search.value.toLowerCase(), within = phase.value === "" ? null : Number(phase.value);
    const from = within === null ? 0 : within === 0 ? 0 : data.phases[within].at_ms;
    const to = within === null || within + 1 >= data.phases.length ? Infinity : data.phases[within + 1].at_ms;
    const found = data.files.filter(f => f[0].toLowerCase().includes(text) && (!origin.value || f[5] === origin.value) &&
      f[3] >= from && f[3] < to);
    const c = columns[state.column], sign = state.down ? -1 : 1;
    found.sort((a, b) => {
      const x = value(c, a), y = value(c, b);
      return x < y ? -sign : x > y ? sign : a[0] < b[0] ? -1 : 1;
    });
    heads.forEach((h, i) => {
      if (i === state.column) h.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else h.removeAttribute("aria-sort");
    });
    body.replaceChildren(...found.slice(0, state.rows).map(f => el("tr", {}, ...columns.map(c =>
      c.text ? pathCell(f[0]) : el("td", { class: c.wide ? "wide" : null }, c.show(f))))));
    count.textContent = `${files(found.length)}, ${bytes(found.reduce((n, f) => n + f[2], 0))} touched`;
    more.hidden = found.length <= state.rows;
  };
  for (const input of [search, origin, phase]) input.addEventListener("input", () => { state.rows = 50; list(); });
  main.append(card("All files", null, el("div", { class: "tools" }, search, origin, phase, count),
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body), more));

  const facts = [["Image", header.image], ["Manifest", header.image_digest], ["Command", header.command.join(" ")],
    ...Object.entries(header.host).map(([k, v]) => [k.replaceAll("_", " "), v]),
    ["Recorder", `${header.recorder.name} ${header.recorder.version}`], ["It adds", header.recorder.inflation],
    ["It misses", header.recorder.blind], ["Events", grouped(header.events)],
    ["On own writes", header.own_writes ? grouped(header.own_writes) : ""],
    ...(header.merged || []).map(m => ["Made of", [m.image, m.started_at, m.recorder, m.gpus].filter(Boolean).join(" · ")])];
  main.append(card("Recording", null, el("dl", {}, ...facts.filter(f => f[1]).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]))));

  list();
  drawTimeline();
  let width = timeline.clientWidth;
  addEventListener("resize", () => {
    if (timeline.clientWidth !== width) { width = timeline.clientWidth; drawTimeline(); }
  });
});
