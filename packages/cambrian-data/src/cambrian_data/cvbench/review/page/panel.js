// The question on the right: its words, the right answer, what was decided, and the numbers behind it.

import { state } from "./browser.js";
import { byId, element, letter } from "./dom.js";

const KINDS = ["accept", "modify", "reject"];

export function showQuestion(question) {
  byId("facts").replaceChildren(
    element("span", { class: "fact strong" }, `Question ${question.idx}`),
    element("span", { class: "fact" }, question.task),
    element("span", { class: "fact" }, question.source),
    ...[...new Set(question.categories)].map((category) => element("span", { class: "fact" }, category)),
  );
  byId("question").textContent = question.question;
  byId("choices").replaceChildren(
    ...question.choices.map((choice, place) => choiceLine(choice, place, letter(place) === question.answer)),
  );
  showDecision(question);
}

function choiceLine(choice, place, isRight) {
  return element(
    "li",
    { class: isRight ? "choice right" : "choice" },
    element("span", { class: "choice-letter" }, `(${letter(place)})`),
    element("span", { class: "choice-text" }, choice),
    isRight ? element("span", { class: "choice-mark" }, "✓ right answer") : null,
  );
}

export function showDecision(question) {
  const { decision } = question;
  const parts = [element("strong", {}, decision ? state(question) : "not decided yet")];
  if (decision?.reason) {
    parts.push(element("span", { class: "reason" }, decision.reason));
  }
  if (decision) {
    parts.push(element("time", { class: "muted", datetime: decision.time }, new Date(decision.time).toLocaleString()));
  }
  if (decision?.changes) {
    const { changes } = decision;
    parts.push(
      element("p", { class: "changed" }, changes.question),
      element(
        "p",
        { class: "changed" },
        changes.choices.map((choice, place) => `(${letter(place)}) ${choice}`).join("   "),
        `   → ${changes.answer}`,
      ),
    );
  }
  byId("decided").className = `decided ${state(question)}`;
  byId("decided").replaceChildren(...parts);
}

export function showProgress(questions) {
  const counts = KINDS.map((kind) => questions.filter((question) => question.decision?.decision === kind).length);
  const decided = counts.reduce((sum, count) => sum + count, 0);
  const bar = byId("progress-bar");
  bar.setAttribute("aria-valuenow", String(decided));
  bar.setAttribute("aria-valuemax", String(questions.length));
  KINDS.forEach((kind, number) => {
    bar.querySelector(`.${kind}`).style.width = `${(100 * counts[number]) / Math.max(questions.length, 1)}%`;
  });
  byId("progress-text").textContent =
    `${decided} of ${questions.length} decided: ${counts[0]} accepted, ${counts[1]} modified, ${counts[2]} rejected`;
}

export function showDetails(question, details) {
  const { width, height } = details;
  byId("caption").textContent = [
    question.file,
    `${width} × ${height} pixels`,
    details.source_dataset,
    details.source_filename ? `from ${details.source_filename}` : null,
  ]
    .filter(Boolean)
    .join("  ·  ");
  byId("picture-notes").textContent = details.notices.join(" ");
  byId("geometry").replaceChildren(
    ...[marginLine(details), offsetLine(details)].filter(Boolean),
    ...subjectTable(details),
    ...[othersLine(details)].filter(Boolean),
  );
}

function subjectTable({ subjects }) {
  if (subjects.length === 0) {
    return [];
  }
  const measured = subjects.some((subject) => subject.distance);
  const head = ["Thing", "Left, top, right, bottom", ...(measured ? ["Nearest", "Farthest"] : [])];
  return [
    element(
      "table",
      {},
      element("caption", {}, "Things asked about"),
      element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...subjects.map((subject, number) => subjectRow(subject, number, measured))),
    ),
  ];
}

function subjectRow(subject, number, measured) {
  const distances = subject.distance ? subject.distance.map(metres) : ["–", "–"];
  return element(
    "tr",
    {},
    element(
      "th",
      { scope: "row" },
      element("span", { class: `swatch ${subject.colour ?? "counted"}`, "aria-hidden": "true" }),
      subject.colour ? subject.category : `${number + 1} ${subject.category}`,
      subject.colour ? element("span", { class: "hidden" }, ` in the ${subject.colour} box`) : null,
    ),
    element("td", {}, subject.box.map((edge) => Math.round(edge)).join(", ")),
    ...(measured ? distances.map((distance) => element("td", {}, distance)) : []),
  );
}

function marginLine({ margin }) {
  if (!margin) {
    return null;
  }
  const part = margin.part === null ? "" : ` (${Math.round(100 * margin.part)} % of the nearer one's farthest)`;
  const nearer = margin.nearer ? `The thing in the ${margin.nearer} box is nearer. ` : "";
  return element("p", {}, nearer, element("strong", {}, `Margin: ${metres(margin.metres)}`), `${part}.`);
}

function offsetLine({ offset, width, height }) {
  if (!offset) {
    return null;
  }
  const across = `${Math.round(Math.abs(offset.right))} pixels ${offset.right < 0 ? "left" : "right"}`;
  const down = `${Math.round(Math.abs(offset.down))} pixels ${offset.down < 0 ? "above" : "below"}`;
  const parts = [Math.abs(offset.right) / width, Math.abs(offset.down) / height].map((part) => Math.round(100 * part));
  return element(
    "p",
    {},
    `Centre to centre, the first thing is ${across} (${parts[0]} % of the width) and ${down} ` +
      `(${parts[1]} % of the height) of the second.`,
  );
}

function othersLine({ others }) {
  if (others.length === 0) {
    return null;
  }
  const counts = new Map();
  for (const { category } of others) {
    counts.set(category, (counts.get(category) ?? 0) + 1);
  }
  const listed = [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([name, count]) => `${count} ${name}`);
  return element("p", { class: "muted" }, `Also annotated: ${listed.join(", ")}.`);
}

function metres(distance) {
  return `${distance.toFixed(2)} m`;
}
