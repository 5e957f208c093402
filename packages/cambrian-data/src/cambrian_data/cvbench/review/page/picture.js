// The picture as a model sees it, and over it, when asked for, what is annotated. Coordinates are the picture's pixels.

import { pictureUrl } from "./api.js";
import { byId, shape } from "./dom.js";

const LAYERS = ["boxes", "cuboids", "others"];
const FONT_PARTS = 40; // letters are this part of the longer side
const LETTER_WIDTH = 0.6; // of their size, about
const PIXELATED_FROM = 3; // screen pixels to one of the picture from which squares say more than a blur

export class Picture {
  constructor() {
    this.drawing = byId("picture");
    this.layers = { boxes: false, cuboids: false, others: false };
    for (const name of LAYERS) {
      byId(`show-${name}`).addEventListener("click", () => this.toggle(name));
    }
    byId("show-all").addEventListener("click", () => this.toggleAll());
    new ResizeObserver(() => this.sharpen()).observe(this.drawing);
  }

  toggle(name) {
    this.layers[name] = !this.layers[name];
    this.apply();
  }

  toggleAll() {
    const on = !LAYERS.every((name) => this.layers[name]);
    for (const name of LAYERS) {
      this.layers[name] = on;
    }
    this.apply();
  }

  apply() {
    for (const name of LAYERS) {
      byId(`show-${name}`).setAttribute("aria-pressed", String(this.layers[name]));
      this.drawing.querySelector(`.layer-${name}`)?.classList.toggle("off", !this.layers[name]);
    }
    byId("show-all").setAttribute("aria-pressed", String(LAYERS.every((name) => this.layers[name])));
  }

  show(question, details) {
    const { width, height } = details;
    this.size = { width, height };
    this.fail(null);
    this.wait();
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.setAttribute("aria-label", `Picture of question ${question.idx}, ${question.file}`);
    const image = shape("image", { href: pictureUrl(question.idx), width, height });
    image.addEventListener("load", () => this.drawing.setAttribute("aria-busy", "false"));
    image.addEventListener("error", () => this.fail("The picture cannot be shown."));
    const size = Math.max(width, height) / FONT_PARTS;
    this.drawing.replaceChildren(
      image,
      shape("g", { class: "layer-others" }, ...details.others.map((thing) => this.box(thing, "other", "", size))),
      shape("g", { class: "layer-boxes" }, ...details.subjects.map((thing, n) => this.subjectBox(thing, n, size))),
      shape("g", { class: "layer-cuboids" }, ...details.subjects.map(cuboid)),
    );
    const { subjects, others } = details;
    this.offer({ boxes: subjects.length > 0, cuboids: subjects.some((thing) => thing.lines), others: others.length > 0 });
    this.apply();
    this.sharpen();
  }

  subjectBox(thing, number, size) {
    return this.box(thing, thing.colour ?? "counted", thing.colour === null ? `${number + 1} ` : "", size);
  }

  box(thing, kind, prefix, size) {
    const [left, top, right, bottom] = thing.box;
    const place = { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) };
    const label = `${prefix}${thing.category}`;
    const isAtEdge = left + label.length * size * LETTER_WIDTH > this.size.width;
    const where = {
      x: isAtEdge ? this.size.width - size * 0.15 : left + size * 0.15,
      y: top >= size * 1.2 ? top - size * 0.3 : top + size,
      "text-anchor": isAtEdge ? "end" : "start",
    };
    return shape(
      "g",
      { class: `thing ${kind}` },
      shape("rect", { ...place, class: "under" }),
      shape("rect", { ...place, class: "line" }),
      shape("text", { ...where, "font-size": size, "stroke-width": size / 5 }, label),
    );
  }

  // Only what this question has can be switched; what is on stays on for the next question that has it.
  offer(has) {
    for (const name of LAYERS) {
      byId(`show-${name}`).disabled = !has[name];
    }
    byId("show-all").disabled = !LAYERS.some((name) => has[name]);
  }

  // From here until the picture is there, or known to be broken, nobody has seen what the question is about.
  wait() {
    this.drawing.setAttribute("aria-busy", "true");
  }

  get isWaiting() {
    return this.drawing.getAttribute("aria-busy") === "true";
  }

  get isBroken() {
    return !byId("picture-error").hidden;
  }

  fail(problem) {
    const shown = byId("picture-error");
    shown.hidden = problem === null;
    shown.textContent = problem ?? "";
    if (problem !== null) {
      this.drawing.replaceChildren();
      this.drawing.setAttribute("aria-busy", "false");
    }
  }

  sharpen() {
    const image = this.drawing.querySelector("image");
    if (image) {
      const { width, height } = this.drawing.getBoundingClientRect();
      const scale = Math.min(width / this.size.width, height / this.size.height);
      image.classList.toggle("pixelated", scale >= PIXELATED_FROM);
    }
  }
}

function cuboid(thing) {
  const lines = (thing.lines ?? []).map(([x1, y1, x2, y2]) => ({ x1, y1, x2, y2 }));
  return shape(
    "g",
    { class: `thing ${thing.colour ?? "counted"}` },
    ...lines.map((line) => shape("line", { ...line, class: "under" })),
    ...lines.map((line) => shape("line", { ...line, class: "line" })),
  );
}
