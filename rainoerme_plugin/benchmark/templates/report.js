"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const toNumber = (value) => (value === "inf" ? Infinity : Number(value));
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Tables

function sortBy(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const numeric = heading.dataset.kind === "number";
  const other = { ascending: "descending", descending: "ascending" };
  const direction = other[heading.getAttribute("aria-sort")] || heading.dataset.first;
  const key = (row) => {
    const text = row.cells[column].dataset.key;
    return text === undefined ? undefined : numeric ? toNumber(text) : text;
  };
  const compare = (a, b) => (numeric ? Math.sign(a - b) || 0 : a.localeCompare(b, undefined, { numeric: true }));
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return direction === "ascending" ? compare(a, b) : compare(b, a);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const one of heading.parentElement.cells) one.setAttribute("aria-sort", one === heading ? direction : "none");
}

for (const button of all(".figures thead button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

// What is shown

const datasets = all(".dataset");
const choose = { protocol: element("protocol"), size: element("size") };

function showColumns() {
  for (const kind of ["protocol", "size"]) {
    const wanted = choose[kind] ? choose[kind].value : "";
    for (const cell of all(`[data-${kind}]`)) cell.hidden = wanted !== "" && cell.dataset[kind] !== wanted;
  }
  for (const kind of ["spread", "difference"]) {
    document.body.classList.toggle(`without-${kind}`, !element(kind).checked);
  }
  if (view.dataset !== null) showFigures();
}

function showPlot(section) {
  const [measure, axis] = [".measure", ".axis"].map((selector) => section.querySelector(selector).value);
  for (const plot of all(".plot", section)) {
    plot.hidden = plot.dataset.measure !== measure || plot.dataset.axis !== axis;
  }
}

function showDataset(number) {
  datasets.forEach((section, index) => (section.hidden = index !== number));
  for (const button of all("[data-dataset]")) button.setAttribute("aria-pressed", button.dataset.dataset === String(number));
  if (choose.protocol) choose.protocol.parentElement.hidden = datasets[number].dataset.paired !== "true";
  view.dataset = data.datasets[number].length ? data.datasets[number] : null;
  element("viewer").hidden = view.dataset === null;
  if (view.dataset === null) return;
  fillStrip();
  showImage(0);
}

// The viewer. A side is "rainy", "clean" or a method's number; x and y are shares of the stage.

const MOST = 16;
const view = { dataset: null, image: 0, wanted: { left: "rainy", right: null }, shown: {}, at: 50, zoom: 1, x: 0, y: 0 };
const stage = element("stage");
const divider = element("divider");
const sideName = (side) => (side === "rainy" ? "rainy" : side === "clean" ? "clean (ground truth)" : data.methods[side]);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const current = () => view.dataset[view.image];

function fillStrip() {
  const items = view.dataset.map((image, index) => {
    const [item, button, picture] = [make("li"), make("button"), make("img")];
    button.type = "button";
    Object.assign(picture, { src: image.pictures.rainy, alt: "", loading: "lazy" });
    button.append(picture, make("span", image.name), ...image.badges.map((badge) => make("span", badge, "badge")));
    button.addEventListener("click", () => showImage(index));
    item.append(button);
    return item;
  });
  element("strip").replaceChildren(...items);
}

function showImage(index) {
  view.image = index;
  const image = current();
  all("#strip button").forEach((button, at) => button.setAttribute("aria-current", String(at === index)));
  const button = all("#strip button")[index];
  element("strip").scrollLeft = button.offsetLeft - element("strip").offsetLeft - button.offsetWidth;
  const [width, height] = image.size;
  const original = image.original.join("×");
  const size = image.size.join("×") === original ? original : `${original}, shown shrunk to ${image.size.join("×")}`;
  const lines = [`${index + 1} of ${view.dataset.length}: `, make("strong", image.name), ` (${size})`];
  if (image.badges.length) lines.push(make("span", ` · ${image.badges.join(" · ")}`, "badge"));
  element("caption").replaceChildren(...lines);
  for (const sized of [stage, divider.parentElement]) {
    sized.style.setProperty("--width", width);
    sized.style.setProperty("--height", height);
  }
  const methods = data.methods.map((_, number) => String(number)).filter((side) => side in image.pictures || image.failed.includes(side));
  const sides = ["rainy", ...methods, ...("clean" in image.pictures ? ["clean"] : [])];
  const there = sides.filter((side) => side in image.pictures);
  for (const where of ["left", "right"]) {
    const other = where === "left" ? "rainy" : there.find((side) => side !== view.shown.left) || "rainy";
    view.shown[where] = there.includes(view.wanted[where]) ? view.wanted[where] : other;
    const options = sides.map((side) => {
      const option = make("option", sideName(side) + (there.includes(side) ? "" : " (failed)"));
      return Object.assign(option, { value: side, disabled: !there.includes(side), selected: side === view.shown[where] });
    });
    element(where).replaceChildren(...options);
  }
  showSides();
  fit();
}

function showSides() {
  for (const where of ["left", "right"]) {
    const side = view.shown[where];
    element(where).value = side;
    const picture = element(`picture-${where}`);
    picture.src = current().pictures[side];
    picture.alt = `${current().name}, ${sideName(side)}`;
    element(`tag-${where}`).textContent = sideName(side);
  }
  moveDivider(view.at);
  showFigures();
}

function showFigures() {
  const [left, right] = [view.shown.left, view.shown.right];
  const heads = element("sides").tHead.rows[0].cells;
  heads[1].textContent = sideName(left);
  heads[2].textContent = sideName(right);
  const protocol = choose.protocol ? choose.protocol.value : "";
  const rows = [];
  data.measures.forEach((measure, index) => {
    const values = [left, right].map((side) => (current().values[side] || [])[index] ?? null);
    if (values.every((value) => value === null)) return;
    if (protocol && measure.protocol !== null && measure.protocol !== protocol) return;
    const texts = values.map((value) => formatValue(value, measure.digits));
    const sign = measure.better === "higher" ? 1 : -1;
    const [a, b] = values.map((value) => (value === null ? NaN : sign * toNumber(value)));
    const row = make("tr");
    const heading = make("th", measure.title);
    heading.scope = "row";
    row.append(heading);
    [a > b, b > a].forEach((wins, at) => {
      const cell = make("td", undefined, "number");
      cell.append(make(wins && measure.ranks && texts[0] !== texts[1] ? "strong" : "span", texts[at]));
      row.append(cell);
    });
    rows.push(row);
  });
  element("sides").tBodies[0].replaceChildren(...rows);
  element("sides").parentElement.hidden = rows.length === 0;
}

function formatValue(value, digits) {
  return value === null ? "–" : value === "inf" ? "∞" : value.toFixed(digits).replace("-", "−");
}

function moveDivider(at) {
  view.at = clamp(at, 0, 100);
  divider.value = view.at;
  divider.setAttribute("aria-valuetext", `${Math.round(view.at)} % ${sideName(view.shown.left)}`);
  element("upper").style.clipPath = `inset(0 ${100 - view.at}% 0 0)`;
  element("line").style.left = `${view.at}%`;
}

function place() {
  view.x = clamp(view.x, 1 - view.zoom, 0);
  view.y = clamp(view.y, 1 - view.zoom, 0);
  for (const where of ["left", "right"]) {
    // Both the same, to the last digit: shares of the picture's own size, which is the stage's.
    element(`picture-${where}`).style.transform = `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.zoom})`;
  }
  const scale = (view.zoom * stage.clientWidth) / current().size[0];
  stage.classList.toggle("enlarged", view.zoom > 1);
  stage.classList.toggle("pixels", view.zoom > 1 && scale > 1);
  element("scale").textContent = `${Math.round(100 * scale)} %`;
  element("smaller").disabled = element("fit").disabled = view.zoom === 1;
  element("larger").disabled = view.zoom === MOST;
}

function zoom(factor, x = 0.5, y = 0.5) {
  const next = clamp(view.zoom * factor, 1, MOST);
  view.x = x - ((x - view.x) * next) / view.zoom;
  view.y = y - ((y - view.y) * next) / view.zoom;
  view.zoom = next;
  place();
}

function fit() {
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
  place();
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  place();
}

function step(by) {
  showImage((view.image + by + view.dataset.length) % view.dataset.length);
}

function open(index, side) {
  view.wanted = { left: view.wanted.left, right: side };
  showImage(index);
  element("viewer").scrollIntoView();
  stage.focus({ preventScroll: true });
}

// Pointers: one moves the divider, or the enlarged picture while the hand is on; two move and zoom.

const pointers = new Map();
const share = (event) => {
  const box = stage.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
};
const hand = element("hand");
const middle = (points) => ({ x: (points[0].x + points[1].x) / 2, y: (points[0].y + points[1].y) / 2 });
const apart = (points) => Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y);

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, share(event));
  if (pointers.size === 1 && hand.getAttribute("aria-pressed") === "false") moveDivider(100 * share(event).x);
});
stage.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = [...pointers.values()];
  pointers.set(event.pointerId, share(event));
  const after = [...pointers.values()];
  if (after.length === 2) {
    const [from, to] = [middle(before), middle(after)];
    pan(to.x - from.x, to.y - from.y);
    if (apart(before) > 0) zoom(apart(after) / apart(before), to.x, to.y);
  } else if (hand.getAttribute("aria-pressed") === "true") {
    pan(after[0].x - before[0].x, after[0].y - before[0].y);
  } else {
    moveDivider(100 * after[0].x);
  }
});
for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => pointers.delete(event.pointerId));
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
  event.preventDefault();
  const { x, y } = share(event);
  zoom(Math.exp(-event.deltaY / 300), x, y);
}, { passive: false });

const KEYS = {
  "[": () => step(-1), "]": () => step(1), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit,
};
const ARROWS = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

element("viewer").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  if (event.key in KEYS) {
    KEYS[event.key]();
  } else if (event.target === stage && event.key in ARROWS) {
    const [x, y] = ARROWS[event.key];
    if (view.zoom > 1) pan(x, y);
    else if (x) moveDivider(view.at - 10 * x);
    else return;
  } else {
    return;
  }
  event.preventDefault();
});

divider.addEventListener("input", () => moveDivider(Number(divider.value)));
for (const where of ["left", "right"]) {
  element(where).addEventListener("change", (event) => {
    view.wanted[where] = view.shown[where] = event.target.value;
    showSides();
  });
}
const press = (id, action) => element(id).addEventListener("click", action);
press("swap", () => {
  view.shown = { left: view.shown.right, right: view.shown.left };
  view.wanted = { ...view.shown };
  showSides();
});
press("previous", () => step(-1));
press("next", () => step(1));
press("smaller", () => zoom(1 / 1.5));
press("larger", () => zoom(1.5));
press("fit", fit);
press("hand", () => {
  const moving = hand.getAttribute("aria-pressed") === "false";
  hand.setAttribute("aria-pressed", String(moving));
  stage.classList.toggle("moving", moving);
});
window.addEventListener("resize", () => view.dataset !== null && place());

for (const button of all("[data-picture]")) {
  button.addEventListener("click", () => open(Number(button.dataset.picture), button.dataset.side));
}
for (const button of all("[data-dataset]")) button.addEventListener("click", () => showDataset(Number(button.dataset.dataset)));
for (const control of [choose.protocol, choose.size, element("spread"), element("difference")]) {
  if (control) control.addEventListener("change", showColumns);
}
for (const section of all(".plots")) {
  section.addEventListener("change", () => showPlot(section));
  showPlot(section);
}
showDataset(0);
showColumns();
