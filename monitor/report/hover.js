"use strict";
// Under the pointer: the nearest sampled step, a line there in every chart, and the values.
const told = document.getElementById("told");
const LEFT = 58, RIGHT = 34, WIDTH = 560, TOP = 10, BOTTOM = 176;
const charts = [...document.querySelectorAll("svg.chart")].map((svg) => {
  const line = document.createElementNS(svg.namespaceURI, "line");
  for (const [name, value] of [["class", "pointer"], ["y1", TOP], ["y2", BOTTOM], ["visibility", "hidden"]])
    line.setAttribute(name, value);
  svg.append(line);
  return { svg, line, ...JSON.parse(svg.dataset.chart) };
});

function nearest(steps, wanted) {
  let best = 0;
  steps.forEach((step, at) => { if (Math.abs(step - wanted) < Math.abs(steps[best] - wanted)) best = at; });
  return best;
}

function place(chart, share) {
  for (const other of charts) {
    if (share === null) { other.line.setAttribute("visibility", "hidden"); continue; }
    const x = LEFT + share * (WIDTH - LEFT - RIGHT);
    other.line.setAttribute("x1", x);
    other.line.setAttribute("x2", x);
    other.line.setAttribute("visibility", "visible");
  }
}

for (const chart of charts) {
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    if (share < 0 || share > 1 || !chart.steps.length) { told.hidden = true; place(chart, null); return; }
    const [first, last] = chart.svg.dataset.span.split(" ").map(Number);
    const at = nearest(chart.steps, first + share * (last - first));
    place(chart, (chart.steps[at] - first) / Math.max(last - first, 1));
    told.replaceChildren(`step ${chart.steps[at]}`);
    for (const series of chart.series) {
      const value = document.createElement("i");
      value.className = series.role;
      value.textContent = `${series.name} ${series.values[at]}`.trim();
      told.append(value);
    }
    told.hidden = false;
    told.style.left = `${Math.min(event.clientX + 14, innerWidth - told.offsetWidth - 8)}px`;
    told.style.top = `${Math.min(event.clientY + 14, innerHeight - told.offsetHeight - 8)}px`;
  });
  chart.svg.addEventListener("pointerleave", () => { told.hidden = true; place(chart, null); });
}
