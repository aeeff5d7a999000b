// Trainings while they run: the list asks again while it is looked at; a run's curves grow by events.
"use strict";
const SECONDS = 2;

const list = document.getElementById("live");
if (list) {
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(list.dataset.source).catch(() => null);
    if (!answer || !answer.ok) return;
    const rows = await answer.json();
    if (rows.some(run => !list.querySelector(`tr[data-key="${run.key}"]`))) return location.reload();
    document.getElementById("running").textContent = rows.filter(run => run.status === "running").length;
    for (const run of rows) show(list.querySelector(`tr[data-key="${run.key}"]`), run);
  }, SECONDS * 1000);
}

function show(row, run) {
  row.querySelector(".status").textContent = run.status;
  row.querySelector("progress").value = run.iteration;
  row.querySelector(".iteration").textContent = run.iteration;
  row.querySelector(".top1").textContent = run.top1 === null ? "-" : run.top1.toFixed(2);
  row.querySelector(".loss").textContent = run.loss === null ? "-" : run.loss.toFixed(4);
}

// The mean of each value and those before it, at most so many of them. What is no number is null, and not counted.
function movingMean(values, length) {
  let sum = 0, count = 0;
  const add = (value, sign) => { if (value !== null) { sum += sign * value; count += sign; } };
  return length === 1 ? values : values.map((value, i) => {
    add(value, 1);
    if (i >= length) add(values[i - length], -1);
    return value === null ? null : sum / count;
  });
}

// The panels of a net: one that does not classify has no Top-1 in any test, and leaves its room to the others.
function panelsOf(top1) {
  if (!top1.length || top1.some(value => value !== null)) return {};
  return {yaxis: {visible: false}, yaxis2: {domain: [0.4, 1]}, yaxis3: {domain: [0, 0.33]}};
}

const followed = document.querySelector("figure.live");
if (followed) follow(followed);

function follow(figure) {
  const place = figure.querySelector("div");
  const empty = (name, yaxis, more) => ({x: [], y: [], name, yaxis, mode: "lines", ...more});
  let traces;
  const begin = () => {
    traces = {
      top1: empty("Top-1", "y", {mode: "lines+markers", line: {color: "#0072b2"}}),
      test: empty("test loss", "y2", {mode: "lines+markers", line: {color: "#d55e00"}}),
      train: empty("training loss", "y2", {line: {color: "#009e73", width: 1}}),
      lr: empty("LR", "y3", {line: {color: "#cc79a7"}}),
    };
  };
  begin();
  const form = document.getElementById("axes");
  const asked = new URLSearchParams(location.search);
  if (asked.has("smooth")) form.elements.smooth.value = asked.get("smooth");
  for (const box of form.elements.log) box.checked = asked.getAll("log").includes(box.value);
  form.hidden = false;
  const log = name => [...form.elements.log].some(box => box.value === name && box.checked);
  const shown = () => {
    const {top1, test, train, lr} = traces;
    const error = log("error");
    return [
      {...top1, name: error ? "error" : "Top-1", y: error ? top1.y.map(v => v === null ? null : 100 - v) : top1.y},
      test,
      {...train, y: movingMean(train.y, Math.max(1, form.elements.smooth.valueAsNumber || 1))},
      lr,
    ];
  };
  let due = false;
  const draw = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const type = name => ({type: log(name) ? "log" : "linear"});
      const title = log("error") ? "error, 100 - Top-1 (%)" : "Top-1 (%)";
      const panels = panelsOf(traces.top1.y);
      const layout = layoutOf("curves", {
        yaxis: {title, ...type("error"), ...panels.yaxis},
        yaxis2: {title: "loss", ...type("loss"), ...panels.yaxis2},
        yaxis3: {title: "LR", ...type("lr"), ...panels.yaxis3},
      });
      layout.datarevision = Date.now();
      layout.uirevision = ["error", "loss", "lr"].map(log).join(); // a zoom stays
      const drawn = panels.yaxis ? shown().slice(1) : shown();
      form.elements.log[0].parentElement.hidden = Boolean(panels.yaxis); // of the error
      makeRoom(place, drawn, layout);
      Plotly.react(place, dotted(drawn), layout, {responsive: true, displaylogo: false});
    });
  };
  form.addEventListener("input", () => {
    history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}`); // the view is an address
    draw();
  });
  form.addEventListener("submit", event => event.preventDefault());
  const source = new EventSource(figure.dataset.events);
  source.onmessage = event => {
    const found = JSON.parse(event.data);
    if (found.again) begin();
    for (const [iteration, lr, loss] of found.losses) {
      traces.train.x.push(iteration); traces.train.y.push(loss);
      traces.lr.x.push(iteration); traces.lr.y.push(lr);
    }
    for (const test of found.tests) {
      traces.test.x.push(test.iteration); traces.test.y.push(test.test_loss);
      traces.top1.x.push(test.iteration); traces.top1.y.push(test.top1);
    }
    if (found.result !== null) document.getElementById("last").textContent = found.result;
    if (found.iteration !== null) {
      document.getElementById("progress").value = found.iteration;
      document.getElementById("iteration").textContent = found.iteration;
    }
    document.getElementById("status").textContent = found.status;
    draw();
  };
  source.addEventListener("end", event => {
    document.getElementById("status").textContent = JSON.parse(event.data);
    source.close();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
