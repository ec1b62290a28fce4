// The story on the front page (sliders over numbers that stand in the page), and what makes every
// page usable by keyboard. No library, no request.
"use strict";

const make = (tag, attributes = {}, text = "") => {
  const svg = ["svg", "path", "circle", "text", "line", "rect", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
                   : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== "") node.textContent = text;
  return node;
};
const percent = (value, digits = 1) => `${value.toFixed(digits)} %`;
const plusMinus = (value, half, digits = 1) =>
  half === null ? percent(value, digits) : `${value.toFixed(digits)} ± ${percent(half, digits)}`;

// ------------------------------------------------------------------------------------- pictures

// Tiles of a sprite: `place` counts from the left.
function tile(told, place) {
  const all = told.images.tiles + (told.images.painted ? told.images.painted.n : 0);
  const node = make("i", {class: "tile"});
  node.style.backgroundImage = `url(${told.images.sprite})`;
  node.style.backgroundSize = `${100 * all}% 100%`;
  node.style.backgroundPosition = `${all > 1 ? (100 * place) / (all - 1) : 0}% 0`;
  return node;
}

function fillStrip(strip, told) {
  strip.replaceChildren(...told.images.ranks.map((rank, i) => {
    const node = tile(told, i);
    node.dataset.rank = rank;
    return node;
  }));
  return [...strip.children];
}

// --------------------------------------------------------------------------------------- charts

// A line chart drawn at the width of its box, so that its letters keep their size on a phone.
function chart(box, {series, x, y, dot, ring, label, height = 250}) {
  const width = Math.max(box.clientWidth, 260), left = 52, right = 14, top = 14, bottom = 44;
  const points = series.flatMap(line => line.points);
  const ys = points.flatMap(p => [p.y - (p.half || 0), p.y + (p.half || 0)]);
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = 0.06 * (high - low || 1);
  const [y0, y1] = [Math.max(low - room, y.least ?? -Infinity), high + room];
  const xs = points.map(p => p.x), [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const px = v => left + (width - left - right) * (v - x0) / (x1 - x0 || 1);
  const py = v => height - bottom - (height - top - bottom) * (v - y0) / (y1 - y0 || 1);
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
                           "aria-label": label});
  for (const value of ticks(y0, y1, 4)) {
    svg.append(make("line", {class: "grid", x1: left, x2: width - right, y1: py(value),
                             y2: py(value)}),
               make("text", {x: left - 8, y: py(value) + 4, "text-anchor": "end"}, `${value}`));
  }
  for (const value of x.ticks ?? ticks(x0, x1, 5)) {
    svg.append(make("text", {x: px(value), y: height - bottom + 18, "text-anchor": "middle"},
                    `${value}`));
  }
  svg.append(make("text", {x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle",
                           class: "axis"}, x.label),
             make("text", {x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle",
                           class: "axis",
                           transform: `rotate(-90 14 ${(top + height - bottom) / 2})`}, y.label));
  series.forEach(line => drawLine(svg, line, px, py));
  if (ring) svg.append(make("circle", {class: "ring", cx: px(ring.x), cy: py(ring.y), r: 10}));
  for (const one of [dot].flat().filter(Boolean)) {
    svg.append(make("circle", {class: `dot ${one.kind || ""}`, cx: px(one.x), cy: py(one.y), r: 6}));
  }
  box.replaceChildren(svg);
}

function drawLine(svg, {points, kind, name, marker}, px, py) {
  const line = list => list.map((p, i) => `${i ? "L" : "M"}${px(p.x)} ${py(p.y)}`).join("");
  if (points.every(p => p.half !== null && p.half !== undefined)) {
    const up = points.map(p => ({x: p.x, y: p.y + p.half}));
    const down = points.map(p => ({x: p.x, y: p.y - p.half})).reverse();
    svg.append(make("path", {class: `band ${kind}`,
                             d: line(up) + line(down).replace("M", "L") + "Z"}));
  }
  svg.append(make("path", {class: `line ${kind}`, d: line(points)}));
  if (marker) {
    points.forEach(p => svg.append(make("rect", {class: `mark ${kind}`, x: px(p.x) - 3,
                                                 y: py(p.y) - 3, width: 6, height: 6})));
  }
  if (name) {
    const at = points[Math.floor(points.length / 2)];
    svg.append(make("text", {class: `name ${kind}`, x: px(at.x), y: py(at.y) - 10,
                             "text-anchor": "middle"}, name));
  }
}

function ticks(low, high, n) {
  const raw = (high - low) / n, size = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].map(m => m * size).find(s => s >= raw) || size;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) {
    found.push(Number(v.toFixed(6)));
  }
  return found;
}

// -------------------------------------------------------------------------------- the five pictures

const sizeOf = name => Number(document.querySelector(`input[name="${name}-size"]:checked`).value);
const onSize = (name, act) => document.querySelectorAll(`input[name="${name}-size"]`)
  .forEach(input => input.addEventListener("change", act));

function tellQuestion(told) {
  const box = document.querySelector("#question .crowd");
  const tiles = fillStrip(box, told), n = tiles.length;
  const order = tiles.map((_, i) => (i * 37) % n).map((v, i) => [v, i]).sort((a, b) => a[0] - b[0]);
  const show = () => {
    const size = told.window ? told.window.sizes[sizeOf("question")] : null;
    const lit = size ? Math.max(1, Math.round(size.ipc / told.images.n_class * n)) : n;
    order.forEach(([, i], k) => tiles[i].classList.toggle("out", k >= lit));
    box.setAttribute("aria-label", `${told.images.n_class} images of class ${told.images.class}, ` +
      `of which ${size ? size.ipc : "some"} are kept`);
    if (!size) return;
    const reached = size.random === null ? "" : " Networks that are trained on random sets of this " +
      `size get ${plusMinus(size.random, size.random_half)} of the test images right.`;
    document.querySelector("#question-reading").textContent =
      `Of ${told.images.n_train.toLocaleString("en")} training images keep ${size.size}: ` +
      `${size.ipc} of each of ${told.images.n_classes} classes.${reached}`;
  };
  onSize("question", show);
  show();
}

function tellSorted(told) {
  const strip = document.querySelector("#sorted .strip"), box = document.querySelector("#difficulty");
  const tiles = fillStrip(strip, told), hard = told.images.difficulty;
  strip.setAttribute("aria-label", `Images of class ${told.images.class}, from the hardest ` +
    `(${hard[0]}) to the easiest (${hard[hard.length - 1]})`);
  const draw = () => {
    const width = Math.max(box.clientWidth, 260), height = 110, most = Math.max(...hard);
    const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
                             "aria-label": "Difficulty of the images, falling from left to right"});
    const step = width / hard.length;
    hard.forEach((v, i) => {
      const high = Math.max(1, (height - 22) * v / most);
      svg.append(make("rect", {class: "difficulty", x: i * step, y: height - 18 - high,
                               width: Math.max(1, step - 1), height: high}));
    });
    svg.append(make("text", {x: 0, y: height - 3}, "hardest"),
               make("text", {x: width, y: height - 3, "text-anchor": "end"}, "easiest"));
    box.replaceChildren(svg);
    const bars = [...svg.querySelectorAll(".difficulty")];
    tiles.forEach((node, i) => {
      node.onpointerenter = () => bars[i].classList.add("lit");
      node.onpointerleave = () => bars[i].classList.remove("lit");
    });
  };
  return draw;
}

function tellWindow(told) {
  const slider = document.querySelector("#beta"), strip = document.querySelector("#window .strip");
  const tiles = fillStrip(strip, told);
  const show = () => {
    const size = told.window.sizes[sizeOf("beta")];
    slider.max = size.points.length - 1;
    const at = size.points[Number(slider.value)], end = at.start + size.ipc;
    tiles.forEach(node => {
      const inside = node.dataset.rank > at.start && node.dataset.rank <= end;
      node.classList.toggle("in", inside);
      node.classList.toggle("out", !inside);
    });
    strip.setAttribute("aria-label", `Images of class ${told.images.class} from hard to easy; ` +
      `the window holds ranks ${at.start + 1} to ${end}`);
    const random = size.random === null ? "" : ` Random sets: ${plusMinus(size.random,
                                                                         size.random_half)}.`;
    const said = `${size.size} kept, β = ${at.beta}: ${plusMinus(at.mean, at.half)} of the test ` +
      `images are classified right${size.sets ? ` (${size.sets} sets)` : ""}.${random}`;
    document.querySelector("#beta-reading").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    const line = {points: size.points.map(p => ({x: p.beta, y: p.mean, half: p.half})),
                  kind: "main", marker: true};
    const first = size.points[0].beta, last = size.points[size.points.length - 1].beta;
    const level = size.random === null ? [] : [{
      points: [first, (first + last) / 2, last].map(x => ({x, y: size.random})), kind: "random",
      name: "random"}];
    const ring = size.points.find(p => p.beta === size.chosen);
    chart(document.querySelector("#accuracy"), {
      series: [line, ...level], dot: {x: at.beta, y: at.mean}, ring: {x: ring.beta, y: ring.mean},
      x: {label: "β: share of the hardest skipped"}, y: {label: "accuracy (%)"}, label: said});
  };
  slider.addEventListener("input", show);
  onSize("beta", show);
  return show;
}

function tellShare(told) {
  const slider = document.querySelector("#alpha"), strip = document.querySelector("#share .strip");
  const painted = told.images.painted;
  const show = () => {
    const size = told.alpha.sizes[sizeOf("alpha")];
    slider.max = size.points.length - 1;
    const at = size.points[Number(slider.value)], frozen = size.ipc - at.repainted;
    let unseen = 0;
    const inside = told.images.ranks.map((rank, i) => [rank, i])
      .filter(([rank]) => rank > size.start && rank <= size.start + size.ipc);
    strip.replaceChildren(...inside.map(([rank, i]) => {
      const repainted = rank - size.start > frozen;
      const seen = painted && rank >= painted.first && rank < painted.first + painted.n;
      const node = tile(told, repainted && seen ? told.images.tiles + rank - painted.first : i);
      node.classList.add(repainted ? "repainted" : "frozen");
      node.classList.toggle("unseen", repainted && !seen);
      unseen += repainted && !seen;
      return node;
    }));
    strip.setAttribute("aria-label", `The window at ${size.size}: ${frozen} images frozen, ` +
      `${at.repainted} repainted`);
    document.querySelector("#alpha-note").textContent = unseen
      ? "Hatched: repainted, too, but no file here keeps the pixels; the image is the one before." : "";
    const said = `${size.size} kept, α = ${at.alpha}: ${frozen} images of the class frozen, ` +
      `${at.repainted} repainted. Accuracy ${plusMinus(...at.test_accuracy)}; of the hard test ` +
      `images ${plusMinus(...at.hard_coverage)} are covered, of the easy ones ` +
      `${plusMinus(...at.easy_coverage)}${size.sets ? ` (${size.sets} sets)` : ""}.`;
    document.querySelector("#alpha-reading").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    const line = (what, kind, name) => ({kind, name, marker: true, points: size.points.map(
      p => ({x: p.alpha, y: p[what][0], half: p[what][1]}))});
    const dot = (what, kind) => ({x: at.alpha, y: at[what][0], kind});
    const axis = {label: "α: share repainted", ticks: size.points.map(p => p.alpha)};
    chart(document.querySelector("#taught"), {
      series: [line("test_accuracy", "main", "")], dot: dot("test_accuracy"), x: axis,
      y: {label: "accuracy (%)"}, label: `Accuracy along α: ${said}`});
    chart(document.querySelector("#covered"), {
      series: [line("easy_coverage", "easy", "easy"), line("hard_coverage", "hard", "hard")],
      dot: [dot("easy_coverage", "easy"), dot("hard_coverage", "hard")], x: axis,
      y: {label: "images covered (%)", least: 0}, label: `Coverage along α: ${said}`});
  };
  slider.addEventListener("input", show);
  onSize("alpha", show);
  return show;
}

// -------------------------------------------------------------------------------------- a lecture

function steerStory() {
  const slides = [...document.querySelectorAll(".slide")], where = document.querySelector("#where");
  const lecture = document.querySelector("#lecture");
  let at = Math.max(0, slides.findIndex(s => `#${s.id}` === location.hash));
  const show = (move = true) => {
    slides.forEach((s, i) => s.classList.toggle("current", i === at));
    where.textContent = `${at + 1} of ${slides.length}`;
    if (move) {
      history.replaceState(null, "", `#${slides[at].id}`);
      slides[at].focus({preventScroll: true});
      slides[at].scrollIntoView({block: "start"});
    }
  };
  const step = by => {
    at = Math.min(Math.max(at + by, 0), slides.length - 1);
    show();
  };
  const setLecture = on => {
    document.body.classList.toggle("lecture", on);
    lecture.setAttribute("aria-pressed", String(on));
    window.dispatchEvent(new Event("resize"));
    show();
  };
  document.querySelector("#before").addEventListener("click", () => step(-1));
  document.querySelector("#after").addEventListener("click", () => step(1));
  lecture.addEventListener("click", () => setLecture(!document.body.classList.contains("lecture")));
  document.addEventListener("keydown", event => {
    const used = event.target.closest("input, textarea, select");
    if (event.altKey || event.ctrlKey || event.metaKey || used) return;
    const by = {ArrowRight: 1, ArrowLeft: -1, PageDown: 1, PageUp: -1}[event.key];
    if (by) step(by);
    else if (event.key === "Escape") setLecture(false);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  const seen = new IntersectionObserver(entries => entries.forEach(entry => {
    if (!entry.isIntersecting || document.body.classList.contains("lecture")) return;
    at = slides.indexOf(entry.target);
    show(false);
  }), {rootMargin: "-45% 0px -45% 0px"});
  slides.forEach(s => seen.observe(s));
  show(false);
}

function tellStory() {
  const told = JSON.parse(document.querySelector("#told").textContent);
  const drawn = [["question", tellQuestion], ["sorted", tellSorted], ["window", tellWindow],
                 ["share", tellShare]]
    .filter(([name]) => document.getElementById(name)).map(([, tellIt]) => tellIt(told))
    .filter(Boolean);
  const draw = () => drawn.forEach(one => one());
  window.addEventListener("resize", draw);
  steerStory();
  draw();
}

// ---------------------------------------------------------------------------------- every page

// The theme opens its drawers with labels of hidden boxes: a keyboard has to reach them, too.
function openDrawersByKey() {
  document.querySelectorAll("label[for^=__], .sidebar-tree label").forEach(label => {
    const box = document.getElementById(label.htmlFor);
    if (!box || label.classList.contains("overlay")) return;
    label.setAttribute("role", "button");
    label.setAttribute("tabindex", "0");
    label.setAttribute("aria-label", box.getAttribute("aria-label") || "Open or close this part");
    const say = () => label.setAttribute("aria-expanded", String(box.checked));
    box.addEventListener("change", say);
    label.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      label.click();
    });
    say();
  });
}

// What scrolls sideways in its own box can be reached and scrolled by keys.
function reachWideBoxes() {
  const wide = ".wide, .output, .table-wrapper, div.math, pre, .cell_output";
  document.querySelectorAll(wide).forEach(box => {
    if (box.scrollWidth > box.clientWidth + 1) box.setAttribute("tabindex", "0");
  });
}

openDrawersByKey();
reachWideBoxes();
window.addEventListener("resize", reachWideBoxes);
if (document.querySelector("#told")) tellStory();
