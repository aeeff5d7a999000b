// Draws the charts of a page. Their data is JSON beside them; the browser's colours are the page's.
"use strict";
const LAYOUTS = {
  schedules: {yaxis: {rangemode: "tozero"}},
  pareto: {},
  curves: {
    xaxis: {title: {text: "iteration"}, anchor: "y3"},
    yaxis: {title: {text: "Top-1 (%)"}, domain: [0.56, 1]},
    yaxis2: {title: {text: "loss"}, domain: [0.27, 0.51]},
    yaxis3: {title: {text: "LR"}, rangemode: "tozero", domain: [0, 0.22]},
    height: 620,
  },
};
const NARROW = 640; // pixels; below, a name has a line of the legend for itself
const ROW = 20, CHARACTER = 6.5, SAMPLE = 60; // pixels of the legend: of a row, a letter, a line's sample

function colours() {
  const style = getComputedStyle(document.documentElement);
  const get = name => style.getPropertyValue(name).trim();
  return {ground: get("--ground"), text: get("--text"), line: get("--line"), faint: get("--faint")};
}

function layoutOf(name, given) {
  const {ground, text, line} = colours();
  const layout = {
    paper_bgcolor: ground, plot_bgcolor: ground, font: {color: text},
    margin: {l: 60, r: 20, t: 20, b: 50}, legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom"},
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

// Colours that a dark page would hide are the page's own.
function visible(traces) {
  const {text, faint} = colours();
  const own = {"#000000": text, "#666666": faint};
  for (const trace of traces) {
    for (const part of [trace.line, trace.marker]) {
      if (part && part.color in own) part.color = own[part.color];
    }
  }
}

// Lines of one point, which would not be seen, are dots.
function dotted(traces) {
  const single = trace => trace.mode === "lines" && trace.y.filter(value => value !== null).length === 1;
  return traces.map(trace => single(trace) ? {...trace, mode: "lines+markers"} : trace);
}

// The legend is below the drawing, which keeps its height: the figure grows by the legend's rows.
function makeRoom(place, traces, layout) {
  const listed = layout.showlegend === false ? [] : traces.filter(t => t.showlegend !== false);
  if (innerWidth < NARROW) {
    for (const trace of traces) trace.name = (trace.name || "").replace(/^(.{20,}?, )/, "$1<br>");
  }
  const longest = Math.max(1, ...listed.flatMap(t => (t.name || "").split("<br>").map(part => part.length)));
  const columns = Math.max(1, Math.floor((place.clientWidth - 80) / (CHARACTER * longest + SAMPLE)));
  const lines = Math.max(1, ...listed.map(t => (t.name || "").split("<br>").length));
  const legend = listed.length > 1 ? ROW * lines * Math.ceil(listed.length / columns) : 0;
  place.style.height = `${(layout.height || (innerWidth < NARROW ? 310 : 370)) + legend}px`;
  layout.margin.b += legend;
  delete layout.height;
}

function draw(figure) {
  const {name, traces, layout} = JSON.parse(figure.querySelector("script").textContent);
  const place = figure.querySelector("div");
  const made = layoutOf(name, layout);
  visible(traces);
  makeRoom(place, traces, made);
  Plotly.react(place, dotted(traces), made, {responsive: true, displaylogo: false});
}

const figures = document.querySelectorAll("figure.chart:not(.live)");
figures.forEach(draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => figures.forEach(draw));
