"use strict";
// Tabs, sorting, filters, columns and drawers over the tables of the page. Text of records is only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const byText = new Intl.Collator("en", { numeric: true });

  // -- state: what the hash says, "#tab=quick&q=mamba&family=attention&sort=score,descending&row=7" ------------------

  const panels = all(".panel");
  const tabs = all(".tabs a");
  const keys = ["tab", "q", ...data.facets, "all", "sort", "columns", "row"];
  const few = 25; // rows of a task that are shown at first: laying out thousands takes a browser a second
  let state = {};

  function readHash() {
    const text = location.hash.slice(1);
    if (text.includes("=")) {
      const given = new URLSearchParams(text);
      state = Object.fromEntries(keys.map((key) => [key, given.get(key) || ""]));
      return null;
    }
    let target = null;
    try { target = document.getElementById(decodeURIComponent(text)); } catch { /* not one of ours */ }
    const panel = target && target.closest(".panel");
    if (panel) state.tab = panel.id;
    return panel ? target : null;
  }

  function writeHash() {
    const given = new URLSearchParams();
    for (const key of keys) if (state[key]) given.set(key, state[key]);
    history.replaceState(null, "", `#${given}`);
  }

  function change(values) {
    Object.assign(state, values);
    writeHash();
    show();
  }

  // -- tabs ----------------------------------------------------------------------------------------------------------

  document.querySelector(".tabs").setAttribute("role", "tablist");
  document.querySelector(".tabs").setAttribute("aria-label", "Protocols");
  tabs.forEach((tab, k) => {
    const id = tab.hash.slice(1);
    for (const [key, value] of Object.entries({ role: "tab", id: `tab-${id}`, "aria-controls": id }))
      tab.setAttribute(key, value);
    const panel = document.getElementById(id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab-${id}`);
    tab.addEventListener("click", (event) => {
      event.preventDefault();
      change({ tab: id, row: "" });
    });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = event.key === " " ? tab : step && tabs[(k + step + tabs.length) % tabs.length];
      if (!next) return;
      event.preventDefault();
      next.click();
      next.focus();
    });
  });

  // -- tables --------------------------------------------------------------------------------------------------------

  const tables = all("table.rows").map((table) => {
    const heads = all("thead th", table);
    const names = heads.map((head) => head.textContent);
    const usual = names.filter((_, k) => !("extra" in heads[k].dataset));
    const groups = all("tbody", table).map((body) => {
      const rows = all("tr[data-row]", body).map((line) => ({ line, facets: data.rows[line.dataset.row].facets, text: "" }));
      return { body, head: body.rows[0], rows, order: rows };
    });
    const rows = groups.flatMap((group) => group.rows);
    const panel = table.closest(".panel");
    const style = document.head.appendChild(make("style"));
    heads.forEach((head, k) => {
      const button = make("button", { type: "button" }, names[k]);
      head.replaceChildren(button);
      // the first click shows the best first
      const first = rows.some((row) => row.line.cells[k].dataset.k) && !names[k].startsWith("rank") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => {
        const [name, order] = state.sort ? state.sort.split(",") : [];
        const next = name !== names[k] ? first : order === first ? second : "";
        change({ sort: next && `${names[k]},${next}` });
      });
    });
    return { table, heads, names, usual, groups, rows, panel, style, sorted: "" };
  });

  function sort(one) {
    if (one.sorted === (state.sort || "")) return;
    one.sorted = state.sort;
    const [name, order] = (state.sort || "").split(",");
    const k = one.names.indexOf(name);
    one.heads.forEach((head, j) => (j === k ? head.setAttribute("aria-sort", order) : head.removeAttribute("aria-sort")));
    const sign = order === "descending" ? -1 : 1;
    const compare = (a, b) => {
      if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "");
      if (isNaN(a.key) !== isNaN(b.key)) return isNaN(a.key) - isNaN(b.key);
      return sign * (isNaN(a.key) ? byText.compare(a.text, b.text) : a.key - b.key);
    };
    for (const group of one.groups) {
      group.order = group.rows;
      if (k >= 0) {
        const cells = group.rows.map((row) => {
          const cell = row.line.cells[k];
          return { row, text: cell.textContent, key: parseFloat(cell.dataset.k) };
        });
        group.order = cells.sort(compare).map((cell) => cell.row);
      }
    }
  }

  function matches(row, words) {
    for (const facet of data.facets) if (state[facet] && !row.facets[facet].includes(state[facet])) return false;
    if (!words.length) return true;
    row.text ||= `${row.line.textContent} ${Object.values(row.facets).flat().join(" ")}`.toLowerCase();
    return words.every((word) => row.text.includes(word));
  }

  function filter(one) {
    const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    let [found, shown] = [0, 0];
    for (const group of one.groups) {
      let count = 0;
      let last = group.head;
      for (const row of group.order) {
        const match = matches(row, words);
        count += match;
        const hidden = !match || (!state.all && count > few);
        if (row.line.hidden !== hidden) row.line.hidden = hidden;
        if (hidden) continue;
        // only what is shown is put in order
        if (last.nextElementSibling !== row.line) last.after(row.line);
        last = row.line;
        shown += 1;
      }
      found += count;
      group.body.hidden = !count;
    }
    const more = shown < found ? `, of these ${shown} shown` : "";
    one.panel.querySelector("output").textContent = `${found} of ${one.rows.length} rows${more}`;
  }

  const shownColumns = (one) => (state.columns ? state.columns.split(",") : one.usual);

  // of the usual columns those that say something of the rows in sight
  function filledColumns(one) {
    if (state.columns) return shownColumns(one);
    const seen = one.rows.filter((row) => !row.line.hidden);
    return one.usual.filter((name) => seen.some((row) => row.line.cells[one.names.indexOf(name)].textContent));
  }

  function hideColumns(one) {
    const shown = filledColumns(one);
    const where = `table.rows[data-protocol="${CSS.escape(one.table.dataset.protocol)}"] tr:not(.task) > `;
    const rules = one.names.flatMap((name, k) => (shown.includes(name) ? [] : [`${where}:nth-child(${k + 1}) { display: none }`]));
    const text = rules.join("\n");
    if (one.style.textContent !== text) one.style.textContent = text;
    for (const box of all(".columns input", one.panel)) box.checked = shownColumns(one).includes(box.value);
  }

  for (const one of tables) {
    const tools = one.panel.querySelector(".tools");
    tools.hidden = false;
    for (const facet of data.facets) {
      const values = new Set(one.rows.flatMap((row) => row.facets[facet]));
      const select = tools.querySelector(`[data-state="${facet}"]`);
      select.append(...[...values].sort(byText.compare).map((value) => make("option", { value }, value)));
      if (values.size < 2) select.closest("label").hidden = true;
    }
    const fields = tools.querySelector("fieldset");
    fields.append(...one.names.map((name) => make("label", {}, make("input", { type: "checkbox", value: name }), name)));
    fields.addEventListener("change", () => {
      const chosen = all("input:checked", fields).map((box) => box.value);
      change({ columns: chosen.join() === one.usual.join() ? "" : chosen.join() });
    });
    for (const control of all("[data-state]", tools))
      control.addEventListener("input", () => {
        const value = control.type !== "checkbox" ? control.value : control.checked ? "1" : "";
        change({ [control.dataset.state]: value });
      });
    if (one.groups.every((group) => group.rows.length <= few)) tools.querySelector('[data-state="all"]').closest("label").hidden = true;
    for (const button of all("[data-copy]", tools))
      button.addEventListener("click", () => copy(button, button.dataset.copy === "csv" ? asCsv(one) : asMarkdown(one)));
    tools.querySelector("[data-reset]").addEventListener("click", () =>
      change(Object.fromEntries(keys.filter((key) => key !== "tab").map((key) => [key, ""]))));
    one.table.addEventListener("click", (event) => {
      const link = event.target.closest("tr[data-row] th a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      change({ row: link.closest("tr").dataset.row });
    });
  }

  // the table of the literature: a column orders it, once more the other way round, then as it was
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    const before = [...table.tBodies[0].rows];
    heads.forEach((head, k) => {
      const text = (row) => row.cells[k].textContent.trim();
      const filled = (row) => !/^[–-]?$/.test(text(row));
      const numeric = before.filter(filled).every((row) => /^[\d.]/.test(text(row)));
      const compare = numeric ? (a, b) => parseFloat(text(a)) - parseFloat(text(b)) : (a, b) => byText.compare(text(a), text(b));
      const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = order[order.indexOf(head.getAttribute("aria-sort")) + 1];
        for (const each of heads) each.removeAttribute("aria-sort");
        const rows = [...before];
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "descending" ? -1 : 1;
          rows.sort((a, b) => filled(b) - filled(a) || (filled(a) && sign * compare(a, b)));
        }
        table.tBodies[0].append(...rows);
      });
    });
  }

  // -- copying -------------------------------------------------------------------------------------------------------

  function cells(one) {
    const shown = filledColumns(one);
    const columns = one.names.map((_, k) => k).filter((k) => shown.includes(one.names[k]));
    const lines = [["task", ...columns.map((k) => one.names[k])]];
    for (const group of one.groups)
      for (const line of all("tr[data-row]:not([hidden])", group.body))
        lines.push([data.rows[line.dataset.row].facets.task[0], ...columns.map((k) => line.cells[k].textContent)]);
    return lines;
  }

  function asMarkdown(one) {
    const escape = (text) => text.replace(/[\\|`*_<&]/g, (mark) => (mark === "<" ? "&lt;" : mark === "&" ? "&amp;" : `\\${mark}`)).replace(/\s+/g, " ");
    const [head, ...lines] = cells(one).map((line) => `| ${line.map(escape).join(" | ")} |`);
    return [head, `|${" --- |".repeat(cells(one)[0].length)}`, ...lines].join("\n") + "\n";
  }

  function asCsv(one) {
    // what begins like a formula is text to spreadsheets, too
    const quote = (text) => `"${(/^[=+@]/.test(text) ? `'${text}` : text).replace(/"/g, '""')}"`;
    return cells(one).map((line) => line.map(quote).join(",")).join("\n") + "\n";
  }

  async function copy(button, text) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const area = make("textarea", { readonly: "", rows: 12, "aria-label": "Text to copy" });
      area.value = text;
      openDrawer("Copy this", [area]);
      area.select();
    }
    setTimeout(() => (button.textContent = label), 1500);
  }

  // -- drawer --------------------------------------------------------------------------------------------------------

  const drawer = document.getElementById("drawer");
  const share = (k) => data.pool[k];
  const columnsOf = (heads, lines) => make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.join(", ") },
    make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell) => make("td", {}, cell)))))));

  function openDrawer(title, parts) {
    const close = make("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", () => drawer.close());
    drawer.replaceChildren(close, make("h2", { id: "drawer-title" }, title), ...parts);
    if (!drawer.open) drawer.showModal();
  }
  drawer.addEventListener("close", () => { if (state.row) change({ row: "" }); });

  function linked(text) {
    return /^https?:\/\/\S+$/.test(text) ? make("a", { href: text, rel: "noreferrer" }, text) : text;
  }

  function showRow() {
    const row = state.row && data.rows[state.row];
    if (!row) {
      if (drawer.open) drawer.close();
      return;
    }
    const link = document.querySelector(`tr[data-row="${CSS.escape(state.row)}"] th a`);
    const folder = link.getAttribute("href").split("/").slice(0, -row.runs[0].record.split("/").length).map((part) => `${part}/`).join("");
    const file = (run) => make("a", { href: folder + run.record.split("/").map(encodeURIComponent).join("/") }, "record");
    const again = make("button", { type: "button" }, "Copy");
    again.addEventListener("click", () => copy(again, row.repeat));
    const facts = row.facts.flatMap(([label, text]) => [make("dt", {}, share(label)), make("dd", {}, linked(share(text)))]);
    const metric = share(row.metric);
    openDrawer(row.title, [
      make("h3", {}, "Runs"),
      columnsOf(["seed", metric, "ended", "code", "file"], row.runs.map((run) => [`${run.seed}`, run.outcome, run.ended, share(run.commit), file(run)])),
      ...curves(row, metric),
      ...analysis(row.analysis),
      make("h3", {}, "Repeat it"),
      make("pre", {}, row.repeat), again,
      make("h3", {}, "Configuration against its preset"),
      row.preset === null ? make("p", {}, "The preset is not known: this architecture or task is not installed here in this version.")
        : row.preset.length ? columnsOf(["key", "here", "preset"], row.preset)
        : make("p", {}, "Exactly the preset."),
      make("details", {}, make("summary", {}, "All values"), make("pre", { tabindex: 0 }, row.config.map(share).join("\n"))),
      make("h3", {}, "What ran"),
      make("dl", { class: "facts" }, ...facts),
    ]);
  }

  function curves(row, metric) {
    const lines = row.runs.map((run) => run.curve).filter((curve) => curve.length > 1);
    if (!lines.length) return [];
    const figure = make("figure");
    const select = make("select", { "aria-label": "Learning curve by" }, make("option", { value: 0 }, "by samples"), make("option", { value: 1 }, "by seconds"));
    const score = (value) => (row.share ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4));
    const label = `${metric} from ${score(lines[0][0][2])} to ${score(lines[0][lines[0].length - 1][2])}`;
    const tick = (value, k) => Math.round(value).toLocaleString("en") + (k < 2 ? "" : +select.value ? " seconds" : " samples");
    const draw = () => figure.replaceChildren(select, curve(lines, +select.value, score, label, tick),
      make("figcaption", { class: "says" }, `${metric} on validation during training, a line per seed`));
    select.addEventListener("change", () => { draw(); select.focus(); });
    draw();
    return [make("h3", {}, "Learning curve"), figure];
  }

  function analysis(found) {
    if (!found) return [];
    const links = found.files.flatMap(([name, href], k) => [k ? ", " : "", make("a", { href }, name)]);
    const score = (value) => value.toPrecision(3);
    const tick = (value, k) => Math.round(2 ** value).toLocaleString("en") + (k < 2 ? "" : " tokens");
    const [cut] = found.context;
    const label = cut && `loss from ${score(cut[0][2])} after one token to ${score(cut[cut.length - 1][2])} after all`;
    const figure = cut ? [make("figure", {}, curve(found.context, 0, score, label, tick, ["none", "4 3"]), make("figcaption", { class: "says" },
      "Loss, nats, after the last tokens alone; dashed: after all, with those before them shuffled"))] : [];
    return [make("h3", {}, "What it does with its context"), ...figure, make("p", {}, ...links)];
  }

  function curve(lines, along, score, label, tick, dashes = []) {
    const [width, height, left, bottom] = [520, 190, 56, 24];
    const node = (name, attributes, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      element.textContent = text;
      return element;
    };
    const points = lines.flat();
    const [far, low, high] = [Math.max(...points.map((p) => p[along])), Math.min(...points.map((p) => p[2])), Math.max(...points.map((p) => p[2]))];
    const x = (value) => left + ((width - left - 8) * value) / (far || 1);
    const y = (value) => height - bottom - ((height - bottom - 10) * (value - low)) / (high - low || 1);
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img", "aria-label": label });
    svg.append(
      node("line", { x1: left, x2: width, y1: height - bottom, y2: height - bottom }),
      node("line", { x1: left, x2: left, y1: 0, y2: height - bottom }),
      ...[low, (low + high) / 2, high].flatMap((value) => [
        node("line", { x1: left - 3, x2: left, y1: y(value), y2: y(value) }),
        node("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, score(value)),
      ]),
      ...[0, far / 2, far].flatMap((value, k) => [
        node("line", { x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 3 }),
        node("text", { x: x(value), y: height - 8, "text-anchor": k < 2 ? "middle" : "end" }, tick(value, k)),
      ]),
      ...lines.map((line, n) => node("path", { "stroke-dasharray": dashes[n] ?? "none",
        d: line.map((p, k) => `${k ? "L" : "M"}${x(p[along]).toFixed(1)} ${y(p[2]).toFixed(1)}`).join("") })),
    );
    return svg;
  }

  // -- charts: what a mark stands for, under the pointer -------------------------------------------------------------

  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest(".chart [data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = `${Math.min(event.pageX + 12, document.documentElement.clientWidth - 200)}px`;
    tip.style.top = `${event.pageY + 12}px`;
  });

  // -- all together --------------------------------------------------------------------------------------------------

  function showControl(control, value) {
    if (control.type === "checkbox") control.checked = value !== "";
    else if (control.value !== value) control.value = value;
  }

  function show() {
    if (!panels.some((panel) => panel.id === state.tab)) state.tab = panels[0].id;
    for (const panel of panels) panel.hidden = panel.id !== state.tab;
    for (const tab of tabs) {
      const chosen = tab.hash === `#${state.tab}`;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    for (const one of tables.filter((each) => each.panel.id === state.tab)) {
      for (const control of all("[data-state]", one.panel)) showControl(control, state[control.dataset.state] || "");
      sort(one);
      filter(one);
      hideColumns(one);
    }
    showRow();
  }

  function start() {
    const target = readHash();
    show();
    if (target && !target.matches(".panel")) target.scrollIntoView();
  }
  addEventListener("hashchange", start);
  start();
})();
