// Tables that can be sorted: a click on a heading, or Enter on it.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    if (!heading.textContent.trim() || heading.querySelector(".hidden")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, heading, column));
  });
}

function sort(table, heading, column) {
  const falling = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const body = table.tBodies[0];
  const key = row => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/^loss /, ""));
    return [text === "-" || text === "", Number.isNaN(number) ? text.toLowerCase() : number];
  };
  const rows = [...body.rows].map(row => [key(row), row]);
  rows.sort(([[noneA, a]], [[noneB, b]]) => {
    if (noneA || noneB) return noneA - noneB; // what was not measured comes last
    const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    return falling ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
}
