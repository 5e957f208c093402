// The dialogs: why a question is rejected, and how it should be. `store` is given a decision and says whether it is stored.

import { byId, element, letter } from "./dom.js";

const REASONS = [
  "ambiguous wording",
  "tiny or hidden object",
  "incomplete labels",
  "wrong answer",
  "wrong or misleading box",
  "broken picture",
];
const MAX_CHOICES = 26;

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

export class RejectDialog {
  constructor(store) {
    this.dialog = byId("reject-dialog");
    this.reason = byId("reject-reason");
    this.store = store;
    byId("reasons").append(...REASONS.map((reason, place) => this.button(reason, place + 1)));
    byId("reject-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.reason.value.trim());
    });
    this.dialog.addEventListener("keydown", (event) => {
      const reason = REASONS[Number(event.key) - 1];
      if (reason && event.target !== this.reason && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        this.send(reason);
      }
    });
  }

  button(reason, number) {
    const made = element("button", { type: "button", class: "reason-button" }, element("kbd", {}, number), reason);
    made.addEventListener("click", () => this.send(reason));
    return made;
  }

  open(question) {
    this.question = question;
    this.reason.value = question.decision?.decision === "reject" ? question.decision.reason : "";
    byId("reject-error").textContent = "";
    this.dialog.showModal();
    byId("reasons").firstElementChild.focus();
  }

  async send(reason) {
    if (!reason) {
      byId("reject-error").textContent = "A rejection needs a reason: choose or write one.";
      this.reason.focus();
      return;
    }
    const problem = await this.store({ idx: this.question.idx, decision: "reject", reason });
    if (problem === null) {
      this.dialog.close();
    } else {
      byId("reject-error").textContent = problem;
    }
  }
}

export class ModifyDialog {
  constructor(store) {
    this.dialog = byId("modify-dialog");
    this.text = byId("modify-question");
    this.choices = byId("modify-choices");
    this.reason = byId("modify-reason");
    this.store = store;
    byId("modify-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("modify-form").addEventListener("input", () => this.preview());
    byId("add-choice").addEventListener("click", () => this.add("", false).focus());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.send();
      } else if (event.key === "Enter" && event.target === this.text) {
        event.preventDefault(); // a question is one line
      }
    });
  }

  open(question) {
    this.question = question;
    const now = question.decision?.changes ?? { ...question, answer: `(${question.answer})` };
    this.text.value = now.question;
    this.reason.value = question.decision?.decision === "modify" ? question.decision.reason : "";
    this.choices.replaceChildren();
    now.choices.forEach((choice, place) => this.add(choice, now.answer === `(${letter(place)})`));
    byId("modify-error").textContent = "";
    this.preview();
    this.dialog.showModal();
    this.text.focus();
  }

  add(choice, isRight) {
    const text = element("input", { type: "text", autocomplete: "off", maxlength: 500 });
    text.value = choice;
    const right = element("input", { type: "radio", name: "right" });
    right.checked = isRight;
    const remove = element("button", { type: "button", class: "quiet" }, "Remove");
    const line = element("li", {}, element("label", { class: "right-mark" }, right, element("span")), text, remove);
    remove.addEventListener("click", () => {
      line.remove();
      this.preview();
    });
    this.choices.append(line);
    this.preview();
    return text;
  }

  lines() {
    return [...this.choices.children].map((line) => ({
      text: line.querySelector("input[type=text]"),
      right: line.querySelector("input[type=radio]"),
      mark: line.querySelector(".right-mark span"),
      remove: line.querySelector("button"),
    }));
  }

  changes() {
    const lines = this.lines();
    const place = lines.findIndex((line) => line.right.checked);
    return {
      question: this.text.value.trim(),
      choices: lines.map((line) => line.text.value.trim()),
      answer: place < 0 ? "" : `(${letter(place)})`,
    };
  }

  preview() {
    const lines = this.lines();
    lines.forEach(({ text, right, mark, remove }, place) => {
      mark.textContent = `(${letter(place)})`;
      text.setAttribute("aria-label", `Text of choice ${letter(place)}`);
      right.setAttribute("aria-label", `Choice ${letter(place)} is right`);
      remove.setAttribute("aria-label", `Remove choice ${letter(place)}`);
      remove.disabled = lines.length <= 2;
    });
    byId("add-choice").disabled = lines.length >= MAX_CHOICES;
    const { question, choices } = this.changes();
    byId("modify-prompt").textContent = [
      `${question} Select from the following choices.`,
      ...choices.map((choice, place) => `(${letter(place)}) ${choice}`),
    ].join("\n");
  }

  async send() {
    const changes = this.changes();
    if (!changes.answer) {
      byId("modify-error").textContent = "No choice is marked as the right one.";
      return;
    }
    const reason = this.reason.value.trim();
    const problem = await this.store({ idx: this.question.idx, decision: "modify", reason, changes });
    if (problem === null) {
      this.dialog.close();
    } else {
      byId("modify-error").textContent = problem;
    }
  }
}
