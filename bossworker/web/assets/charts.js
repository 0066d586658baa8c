// Lines over time, drawn by uPlot. One chart has one or two series, and its figures in words beside it.

import { html, useEffect, useRef } from "./vendor/htm-preact.module.js";

const HEIGHT = 120;
const WINDOW_SECONDS = 120;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(width, series, format, least) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    padding: [8, 16, 0, 0],
    scales: { x: { time: true }, y: { range: (chart, low, high) => [0, Math.max(high * 1.15, least)] } },
    axes: [
      { ...axis, size: 24, splits: (chart) => [90, 60, 30, 0].map((back) => chart.scales.x.max - back), values: () => ["−90 s", "−60 s", "−30 s", "now"] },
      { ...axis, size: 56, space: 36, values: (chart, splits) => splits.map(format) },
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.label,
        stroke: colour(one.colour),
        width: 1.5,
        fill: one.fill ? `${colour(one.colour)}22` : undefined,
        points: { show: false },
        spanGaps: true,
      })),
    ],
  };
}

export function Chart({ points, series, format, title, figure, least }) {
  const place = useRef();
  const chart = useRef(null);
  useEffect(() => {
    const make = () => {
      chart.current?.destroy();
      chart.current = new window.uPlot(options(place.current.clientWidth, series, format, least), [[], ...series.map(() => [])], place.current);
      chart.current.draw_ = () => draw(chart.current, points.current, series);
      chart.current.draw_();
    };
    make();
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    const watch = new ResizeObserver(() => chart.current?.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    watch.observe(place.current);
    return () => {
      scheme.removeEventListener("change", make);
      watch.disconnect();
      chart.current.destroy();
      chart.current = null;
    };
  }, []);
  useEffect(() => chart.current?.draw_());
  return html`<figure class="chart card">
    <figcaption><span class="chart-title">${title}</span><span class="chart-figure">${figure}</span></figcaption>
    <div ref=${place} class="chart-place" aria-hidden="true"></div>
  </figure>`;
}

function draw(chart, points, series) {
  const newest = points.length ? points[points.length - 1][0] : Date.now() / 1000;
  const seen = points.filter((point) => point[0] >= newest - WINDOW_SECONDS - 5);
  chart.setData([seen.map((point) => point[0]), ...series.map((one) => seen.map((point) => point[one.at]))], false);
  chart.setScale("x", { min: newest - WINDOW_SECONDS, max: newest });
}
