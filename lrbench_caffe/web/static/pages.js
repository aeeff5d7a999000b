// Tables that can be sorted: a click on a heading, or Enter on it. Weights have sliders beside their
// numbers. Commands can be copied. A form's empty fields stay out of its address.
"use strict";
for (const field of document.querySelectorAll(".weights input")) {
  const slider = document.createElement("input");
  Object.assign(slider, {type: "range", min: field.min, max: field.max, step: 0.5, value: field.value || 0});
  slider.setAttribute("aria-label", `${field.parentElement.textContent.trim()}, slider`);
  slider.addEventListener("input", () => { field.value = slider.value === "0" ? "" : slider.value; });
  field.addEventListener("input", () => { slider.value = field.value || 0; });
  field.parentElement.after(slider);
}

for (const code of navigator.clipboard ? document.querySelectorAll("code.copied") : []) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  });
  code.after(" ", button);
}

for (const form of document.querySelectorAll("form[method=get]")) {
  form.addEventListener("formdata", event => {
    for (const name of new Set(event.formData.keys())) {
      const given = event.formData.getAll(name).filter(value => value !== "");
      event.formData.delete(name);
      for (const value of given) event.formData.append(name, value);
    }
  });
}

function makeSortable(table) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    if (!heading.textContent.trim() || heading.querySelector(".hidden") || "plain" in heading.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, heading, column));
  });
}
document.querySelectorAll("table.sortable").forEach(makeSortable);

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
