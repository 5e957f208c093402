// The list of questions on the left and the filters above it.

import { byId, element } from "./dom.js";

const UNDECIDED = "undecided";
const WORDS = { accept: "accepted", modify: "modified", reject: "rejected" };

export class Browser {
  constructor(choose) {
    this.choose = choose;
    this.questions = [];
    this.shown = [];
    this.buttons = new Map();
    this.selects = Object.fromEntries(
      ["decision", "task", "source", "category", "answer"].map((name) => [name, byId(`filter-${name}`)]),
    );
    this.text = byId("filter-text");
    byId("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      byId("question").focus(); // Enter: the search stays, and keys are keys again
    });
    byId("filters").addEventListener("input", () => this.filter());
    byId("clear-filters").addEventListener("click", () => this.clear());
  }

  load(questions) {
    this.questions = questions;
    this.haystacks = new Map(questions.map((question) => [question.idx, haystack(question)]));
    offer(this.selects.decision, "any", [[null, [UNDECIDED, "accepted", "modified", "rejected"]]]);
    offer(this.selects.task, "any", [[null, distinct(questions.map((question) => question.task))]]);
    offer(this.selects.source, "any", [[null, distinct(questions.map((question) => question.source))]]);
    offer(this.selects.category, "any", [[null, distinct(questions.flatMap((question) => question.categories))]]);
    offer(this.selects.answer, "any", [
      ["Letter", distinct(questions.map((question) => `(${question.answer})`))],
      ["Text", distinct(questions.map((question) => question.answer_text))],
    ]);
    this.filter();
  }

  clear() {
    byId("filters").reset();
    this.filter();
  }

  // Escape in a filter: back to the question, without the search if it was there.
  leaveSearch(field) {
    if (field === this.text) {
      this.text.value = "";
      this.filter();
    }
    byId("question").focus();
  }

  filter() {
    const words = this.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = Object.fromEntries(Object.entries(this.selects).map(([name, select]) => [name, select.value]));
    this.shown = this.questions.filter(
      (question) =>
        (!wanted.decision || state(question) === wanted.decision) &&
        (!wanted.task || question.task === wanted.task) &&
        (!wanted.source || question.source === wanted.source) &&
        (!wanted.category || question.categories.includes(wanted.category)) &&
        (!wanted.answer || answers(question, wanted.answer)) &&
        words.every((word) => this.haystacks.get(question.idx).includes(word)),
    );
    this.draw();
  }

  draw() {
    this.buttons = new Map(this.shown.map((question) => [question.idx, this.button(question)]));
    const entries = this.isEmpty ? ["No question matches the filters."] : [...this.buttons.values()];
    byId("list").classList.toggle("empty", this.isEmpty);
    byId("list").replaceChildren(...entries.map((entry) => element("li", {}, entry)));
    byId("count").textContent = `${this.shown.length} of ${this.questions.length} questions`;
    this.mark(this.current);
  }

  get isEmpty() {
    return this.shown.length === 0;
  }

  has(idx) {
    return this.buttons.has(idx);
  }

  button(question) {
    const made = element(
      "button",
      { type: "button", class: `entry ${state(question)}` },
      element("span", { class: "dot", "aria-hidden": "true" }),
      element("span", { class: "entry-idx" }, question.idx),
      element("span", { class: "entry-task" }, question.task),
      element("span", { class: "entry-text" }, summary(question)),
      element("span", { class: "hidden entry-state" }, state(question)),
    );
    made.addEventListener("click", () => this.choose(question.idx));
    return made;
  }

  // Shows a decision in the list; the question stays where it is until the filters are used again.
  update(question) {
    const button = this.buttons.get(question.idx);
    if (button) {
      button.className = `entry ${state(question)}`;
      button.querySelector(".entry-state").textContent = state(question);
    }
  }

  mark(idx) {
    this.buttons.get(this.current)?.removeAttribute("aria-current");
    this.current = idx;
    const button = this.buttons.get(idx);
    button?.setAttribute("aria-current", "true");
    button?.scrollIntoView({ block: "nearest" });
  }

  // The question some steps away in the list; from one that the filters hide, the first or the last.
  neighbour(step) {
    const place = this.shown.findIndex((question) => question.idx === this.current);
    if (place < 0) {
      return step > 0 ? this.shown[0] : this.shown.at(-1);
    }
    return this.shown[place + step];
  }

  // The first undecided question after the current one, from the beginning again after the last.
  undecided({ fromStart = false } = {}) {
    const place = fromStart ? -1 : this.shown.findIndex((question) => question.idx === this.current);
    const after = [...this.shown.slice(place + 1), ...this.shown.slice(0, place + 1)];
    return after.find((question) => !question.decision);
  }
}

export function state(question) {
  return question.decision ? WORDS[question.decision.decision] : UNDECIDED;
}

// Questions of a task begin alike: what differs are the things and the answer.
function summary({ categories, answer_text: answer, question }) {
  return categories.length > 0 ? `${categories.join(", ")}: ${answer}` : question;
}

function answers(question, wanted) {
  return wanted === `(${question.answer})` || wanted === question.answer_text;
}

function haystack(question) {
  const parts = [question.idx, question.question, question.file, ...question.choices, ...question.categories];
  return parts.join("\n").toLowerCase();
}

function distinct(values) {
  return [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function offer(select, nothing, groups) {
  const chosen = select.value;
  select.replaceChildren(element("option", { value: "" }, nothing));
  for (const [label, values] of groups) {
    const options = values.map((value) => element("option", { value }, value));
    select.append(...(label === null ? options : [element("optgroup", { label }, ...options)]));
  }
  select.value = chosen;
  if (select.selectedIndex < 0) {
    select.value = "";
  }
}
