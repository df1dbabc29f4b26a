"use strict";

const element = (id) => document.getElementById(id);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const LARGEST = 2; // small photographs are not enlarged more than that to fit
const REACH = 20; // pixels from the divider where a larger picture is not moved, but the divider
const SIDES = ["rainy", "derained"];
const photographs = all("#photographs > [data-width]");
const [room, stage, line, peek] = ["room", "stage", "line", "peek"].map(element);

// scale 0 fits the picture into the room; x and y are the shares of the picture that are in the middle of the stage.
const view = { index: -1, width: 1, height: 1, at: 50, peeking: false, scale: 0, x: 0.5, y: 0.5 };

// The photograph

function show(index) {
  view.index = (index + photographs.length) % photographs.length;
  const shown = photographs[view.index];
  photographs.forEach((item) => item.firstElementChild.setAttribute("aria-current", String(item === shown)));
  if (element("photographs").contains(document.activeElement)) shown.firstElementChild.focus();
  shown.scrollIntoView({ block: "nearest" });
  element("place").textContent = `${view.index + 1} of ${photographs.length}`;
  const [name, size] = shown.querySelector("figcaption").children;
  const texts = shown.querySelector("noscript").textContent;
  const pictures = [...texts.matchAll(/src="([^"]+)"/g)].map(([, source], side) =>
    Object.assign(new Image(), { src: source, alt: `${name.textContent}, ${SIDES[side]}`, draggable: false }),
  );
  // All changes at once, when both are there; the next one may have been asked for by then.
  return Promise.all(pictures.map((picture) => picture.decode())).then(() => {
    if (photographs[view.index] !== shown) return;
    element("name").textContent = name.textContent;
    element("size").textContent = size.textContent;
    [view.width, view.height] = [Number(shown.dataset.width), Number(shown.dataset.height)];
    SIDES.forEach((side, at) => element(side).replaceChildren(pictures[at]));
    zoom(view.scale);
  });
}

// The divider

function moveDivider(at) {
  view.at = clamp(at, 0, 100);
  const covered = view.peeking ? 100 : view.at;
  line.style.left = `${view.at}%`;
  line.setAttribute("aria-valuenow", String(Math.round(view.at)));
  line.setAttribute("aria-valuetext", `${Math.round(covered)} % rainy`);
  element("upper").style.clipPath = `inset(0 ${100 - covered}% 0 0)`;
  stage.classList.toggle("peeking", view.peeking);
  peek.setAttribute("aria-pressed", String(view.peeking));
}

function setPeeking(peeking) {
  view.peeking = peeking;
  moveDivider(view.at);
}

// Where the pictures are

function place() {
  const [wide, high] = [room.clientWidth, room.clientHeight];
  const fit = Math.min(wide / view.width, high / view.height, LARGEST);
  const scale = view.scale || fit;
  const [width, height] = [view.width * scale, view.height * scale];
  const [across, down] = [Math.min(width, wide), Math.min(height, high)];
  const left = clamp(across / 2 - view.x * width, across - width, 0);
  const top = clamp(down / 2 - view.y * height, down - height, 0);
  Object.assign(view, { x: (across / 2 - left) / width, y: (down / 2 - top) / height, fit });
  Object.assign(stage.style, { width: `${across}px`, height: `${down}px` });
  for (const picture of all("img", stage)) {
    Object.assign(picture.style, { width: `${width}px`, height: `${height}px`, transform: `translate(${left}px, ${top}px)` });
  }
  const larger = width > across + 1 || height > down + 1;
  stage.classList.toggle("larger", larger);
  stage.classList.toggle("pixels", view.scale > 1);
  element("moves").hidden = !larger;
}

function zoom(scale, x = 0.5, y = 0.5) {
  Object.assign(view, { scale, x, y });
  for (const button of all("[data-scale]")) button.setAttribute("aria-pressed", String(Number(button.dataset.scale) === scale));
  place();
}

function move(right, down) {
  const picture = stage.querySelector("img").getBoundingClientRect();
  view.x += right / picture.width;
  view.y += down / picture.height;
  place();
}

// Pointers

let dragged = null; // "divider" or "picture"

function moveDividerTo(event) {
  const box = stage.getBoundingClientRect();
  moveDivider((100 * (event.clientX - box.left)) / box.width);
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  event.preventDefault();
  line.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const box = line.getBoundingClientRect();
  const near = Math.abs(event.clientX - box.left - box.width / 2) <= REACH;
  dragged = near || !stage.classList.contains("larger") ? "divider" : "picture";
  if (dragged === "divider") moveDividerTo(event);
});
stage.addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  if (dragged === "divider") moveDividerTo(event);
  if (dragged === "picture") move(-event.movementX, -event.movementY);
});
for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => (dragged = null));
stage.addEventListener("wheel", (event) => {
  if (event.ctrlKey || event.metaKey || !stage.classList.contains("larger")) return;
  event.preventDefault();
  move(event.deltaX, event.deltaY);
}, { passive: false });
stage.addEventListener("dblclick", (event) => {
  const picture = stage.querySelector("img").getBoundingClientRect();
  const scale = view.scale ? 0 : view.fit < 1 ? 1 : 2;
  zoom(scale, (event.clientX - picture.left) / picture.width, (event.clientY - picture.top) / picture.height);
});

peek.addEventListener("pointerdown", () => setPeeking(true));
for (const kind of ["pointerup", "pointercancel", "blur"]) window.addEventListener(kind, () => view.peeking && setPeeking(false));
peek.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
element("previous").addEventListener("click", () => show(view.index - 1));
element("next").addEventListener("click", () => show(view.index + 1));
for (const button of all("[data-scale]")) button.addEventListener("click", () => zoom(Number(button.dataset.scale)));
photographs.forEach((item, index) => item.firstElementChild.addEventListener("click", () => show(index)));
// Whoever clicks goes on with keys that are the picture's: a button in focus would take the space bar.
document.addEventListener("click", (event) => event.detail > 0 && event.target.closest("button") && line.focus({ preventScroll: true }));

// Keys

const KEYS = {
  ArrowLeft: () => moveDivider(view.at - 2), ArrowRight: () => moveDivider(view.at + 2),
  Home: () => moveDivider(0), End: () => moveDivider(100),
  ArrowUp: () => show(view.index - 1), ArrowDown: () => show(view.index + 1),
  p: () => show(view.index - 1), n: () => show(view.index + 1),
  0: () => zoom(0), 1: () => zoom(1), 2: () => zoom(2),
};
const MOVES = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const button = event.target.closest("button");
  if (event.key === " " && (!button || button === peek)) {
    if (!event.repeat) setPeeking(true);
  } else if (event.shiftKey && event.key in MOVES) {
    move(...MOVES[event.key]);
  } else if (event.key in KEYS) {
    KEYS[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});
document.addEventListener("keyup", (event) => event.key === " " && view.peeking && setPeeking(false));

if (photographs.length) {
  element("tools").hidden = element("viewer").hidden = false;
  moveDivider(50);
  show(0);
  new ResizeObserver(place).observe(room);
}
