// Draws the charts of a page. Their data is JSON beside them; the browser's colours are the page's.
"use strict";
const LAYOUTS = {
  schedules: {yaxis: {rangemode: "tozero"}},
  pareto: {},
  curves: {
    grid: {rows: 3, columns: 1, subplots: ["xy", "xy2", "xy3"]},
    xaxis: {title: {text: "iteration"}},
    yaxis: {title: {text: "Top-1 (%)"}},
    yaxis2: {title: {text: "loss"}},
    yaxis3: {title: {text: "LR"}, rangemode: "tozero"},
    height: 620,
  },
};

function colours() {
  const style = getComputedStyle(document.documentElement);
  const get = name => style.getPropertyValue(name).trim();
  return {ground: get("--ground"), text: get("--text"), line: get("--line")};
}

function layoutOf(name, given) {
  const {ground, text, line} = colours();
  const layout = {
    paper_bgcolor: ground, plot_bgcolor: ground, font: {color: text},
    margin: {l: 60, r: 20, t: 20, b: 50}, legend: {orientation: "h", y: innerWidth < 640 ? -0.35 : -0.2},
    ...structuredClone(LAYOUTS[name] || {}),
  };
  for (const axis of ["xaxis", "yaxis", "yaxis2", "yaxis3"]) {
    const own = {...(layout[axis] || {}), ...(given[axis] || {})};
    if (typeof own.title === "string") own.title = {text: own.title};
    layout[axis] = {gridcolor: line, zerolinecolor: line, ...own};
  }
  for (const name of ["shapes", "annotations", "showlegend"]) {
    if (name in given) layout[name] = given[name];
  }
  return layout;
}

function draw(figure) {
  const {name, traces, layout} = JSON.parse(figure.querySelector("script").textContent);
  const place = figure.querySelector("div");
  const made = layoutOf(name, layout);
  if (made.height) place.style.height = `${made.height}px`;
  Plotly.react(place, traces, made, {responsive: true, displaylogo: false});
}

const figures = document.querySelectorAll("figure.chart:not(.live)");
figures.forEach(draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => figures.forEach(draw));
