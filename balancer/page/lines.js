// Lines over the last minutes, as SVG. What they show is told in words, too: for who does not see them, and for whom
// colours are not enough, each line has a pattern of its own.

import {make, makeSvg, say} from "./dom.js";

const SPANS = [[120, 1], [300, 3], [600, 5]]; // seconds that are shown, and over how many a mean is taken
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [150, 38, 4, 8, 18];

/** `series`: [{name, valueOf, style}]: what of a second is drawn, and how; `told` makes words of a number. It has
 *  `element` and `show(seconds, now)`. */
export function lineChart(title, told, series) {
  const paths = series.map(({style}) => makeSvg(`path.line.${style}`));
  const grid = makeSvg("g.grid");
  const svg = makeSvg("svg.chart", {"aria-hidden": "true"}, grid, ...paths);
  const words = series.map(() => make("span"));
  const legend = make("ul.legend", {}, ...series.map(({name, style}, index) =>
    make("li", {}, sample(style), `${name} `, words[index])));
  const element = make("figure", {}, make("figcaption", {}, make("h2", {}, title), legend), svg);
  let shown = null;

  function show(seconds, now) {
    shown = [seconds, now];
    const [span, bucket] = spanOf(seconds, now);
    const rows = series.map(({valueOf}) => means(seconds, now, valueOf, span, bucket));
    const plane = {width: Math.max(200, svg.clientWidth), top: niceTop(Math.max(...rows.flat(), 0)), span};
    drawGrid(grid, plane);
    rows.forEach((row, index) => {
      const known = row.filter((value) => value !== null);
      paths[index].setAttribute("d", drawn(row, plane));
      say(words[index], known.length ? `${told(known.at(-1))}, top ${told(Math.max(...known))}` : "");
    });
  }

  new ResizeObserver(() => shown && show(...shown)).observe(svg);
  return {element, show};
}

function sample(style) {
  return makeSvg("svg.sample", {viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true"},
    makeSvg(`path.line.${style}`, {d: "M1,4H21"}));
}

/** The shortest of SPANS that has all that is known. */
function spanOf(seconds, now) {
  const oldest = Math.min(now, ...seconds.keys());
  return SPANS.find(([span]) => now - oldest < span) ?? SPANS.at(-1);
}

/** Means over `bucket` seconds, the oldest first; null where nothing is known. */
function means(seconds, now, valueOf, span, bucket) {
  const length = span / bucket;
  const [sums, counts] = [new Array(length).fill(0), new Array(length).fill(0)];
  const end = Math.floor(now / bucket) * bucket; // whole ones: the line moves on, and does not tremble
  for (const second of seconds.values()) {
    const at = length - 1 - Math.floor((end - 1 - second.at_wall) / bucket);
    if (at < 0 || at >= length) continue;
    sums[at] += valueOf(second);
    counts[at] += 1;
  }
  return sums.map((sum, at) => (counts[at] ? sum / counts[at] : null));
}

/** 1, 2, 2.5 or 5 times a power of ten, and no less than what is drawn. */
function niceTop(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= most);
}

const heightOf = (value, {top}) => TOP + (HEIGHT - BOTTOM - TOP) * (1 - value / top);

/** A line through what is known, broken where nothing is. */
function drawn(row, plane) {
  const step = (plane.width - LEFT - RIGHT) / (row.length - 1);
  const place = (value, at) => `${(LEFT + at * step).toFixed(1)},${heightOf(value, plane).toFixed(1)}`;
  const known = (at) => (row[at] ?? null) !== null;
  return row.map((value, at) => (!known(at) ? "" : known(at - 1) ? `L${place(value, at)}` : `M${place(value, at)}h.1`))
    .join("");
}

function drawGrid(grid, plane) {
  const {width, top, span} = plane;
  const key = `${width} ${top} ${span}`;
  if (grid.dataset.drawn === key) return;
  grid.dataset.drawn = key;
  const end = width - RIGHT;
  const across = [0, top / 2, top].flatMap((value) => [
    makeSvg("path", {d: `M${LEFT},${heightOf(value, plane).toFixed(1)}H${end}`}),
    makeSvg("text", {x: LEFT - 6, y: heightOf(value, plane) + 4, "text-anchor": "end"}, compact(value)),
  ]);
  const marks = [[`${span / 60} min ago`, LEFT, "start"], ["now", end, "end"]];
  if (width > 300) marks.push([`${span / 120} min ago`, (LEFT + end) / 2, "middle"]);
  const below = marks.map(([text, x, anchor]) => makeSvg("text", {x, y: HEIGHT - 4, "text-anchor": anchor}, text));
  grid.replaceChildren(...across, ...below);
}

function compact(value) {
  return value >= 10_000 ? new Intl.NumberFormat("en", {notation: "compact"}).format(value) : String(value);
}
