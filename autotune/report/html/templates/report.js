"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const words = new Intl.Collator("en", { numeric: true });

  // Sorting: a button in each heading, the state in aria-sort; what has no value stays last either way.
  const value = (row, column) => {
    const by = row.cells[column].dataset.by;
    if (by === undefined) return null;
    return by !== "" && Number.isFinite(Number(by)) ? Number(by) : by;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : words.compare(String(a), String(b)));
  const sort = (table, heading) => {
    const other = { ascending: "descending", descending: "ascending" };
    const now = heading.getAttribute("aria-sort");
    const order = other[now] || heading.querySelector("button").dataset.first;
    all("th[aria-sort]", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, by: value(row, heading.cellIndex) }));
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      if (a.by === null || b.by === null) return (a.by === null) - (b.by === null) || a.place - b.place;
      return sign * compare(a.by, b.by) || a.place - b.place;
    });
    body.append(...rows.map((r) => r.row));
  };
  all("table.sortable").forEach((table) => {
    all("thead button", table).forEach((button) => button.addEventListener("click", () => sort(table, button.closest("th"))));
  });

  // Filtering: every word must be in the row.
  all(".tools").forEach((tools) => {
    const table = document.getElementById(tools.dataset.for);
    const [text, engine, alike] = ["input[type=search]", "select", "input[type=checkbox]"].map((s) => tools.querySelector(s));
    const rows = [...table.tBodies[0].rows];
    const contents = new Map(rows.map((row) => [row, `${row.textContent} ${row.dataset.plan}`.toLowerCase()]));
    const show = () => {
      const wanted = text.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const fits = wanted.every((word) => contents.get(row).includes(word));
        row.hidden = !(fits && (!engine || !engine.value || row.dataset.engine === engine.value) && (!alike.checked || "alike" in row.dataset));
        shown += row.hidden ? 0 : 1;
      });
      tools.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    };
    [text, engine, alike].forEach((input) => input && input.addEventListener("input", show));
    tools.hidden = false;
    show();
  });

  // Pointing at a mark: what it is, and the same plan wherever else it stands.
  const tip = document.getElementById("tip");
  const place = (event) => {
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const below = event.clientY + 16;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${below + box.height > window.innerHeight ? Math.max(event.clientY - box.height - 12, 4) : below}px`;
  };
  const named = (plan) => all("[data-plan]").filter((element) => element.dataset.plan === plan);
  let lit = [];
  const light = (plan) => {
    lit.forEach((element) => element.classList.remove("lit"));
    lit = plan ? named(plan) : [];
    lit.forEach((element) => element.classList.add("lit"));
  };
  document.addEventListener("pointerover", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const mark = target && target.closest("[data-tip]");
    const owner = target && target.closest("[data-plan]");
    light(owner && owner.dataset.plan);
    tip.hidden = !mark;
    if (!mark) return;
    const [first, ...rest] = mark.dataset.tip.split("\n");
    const head = document.createElement("strong");
    head.textContent = first;
    tip.replaceChildren(head, ...rest.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    place(event);
  });
  document.addEventListener("pointermove", (event) => { if (!tip.hidden) place(event); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // On paper everything is open.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
})();
