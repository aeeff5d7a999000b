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

const followed = document.querySelector("figure.live");
if (followed) follow(followed);

function follow(figure) {
  const place = figure.querySelector("div");
  const empty = (name, yaxis, more) => ({x: [], y: [], name, yaxis, mode: "lines", ...more});
  let traces;
  const begin = () => {
    traces = {
      top1: empty("Top-1", "y", {mode: "lines+markers"}),
      test: empty("test loss", "y2", {mode: "lines+markers"}),
      train: empty("training loss", "y2", {line: {width: 1}}),
      lr: empty("LR", "y3"),
    };
  };
  begin();
  let due = false;
  const draw = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const layout = layoutOf("curves", {datarevision: Date.now()});
      layout.datarevision = Date.now();
      place.style.height = `${layout.height}px`;
      Plotly.react(place, Object.values(traces), layout, {responsive: true, displaylogo: false});
    });
  };
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
      document.getElementById("last").textContent =
        test.top1 === null ? `loss ${test.test_loss}` : `${test.top1.toFixed(2)} %`;
    }
    const last = traces.train.x.at(-1);
    if (last !== undefined) {
      document.getElementById("progress").value = last + 1;
      document.getElementById("iteration").textContent = Math.round(last + 1);
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
