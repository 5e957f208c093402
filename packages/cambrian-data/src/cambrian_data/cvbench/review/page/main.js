// The review page: loads the questions, shows one, and stores what is decided before it moves on.

import { loadDetails, loadOverview, pictureUrl, storeDecision, takeBack } from "./api.js";
import { Browser } from "./browser.js";
import { ModifyDialog, RejectDialog } from "./dialogs.js";
import { byId, element } from "./dom.js";
import { showDecision, showDetails, showProgress, showQuestion } from "./panel.js";
import { Picture } from "./picture.js";

const browser = new Browser(show);
const picture = new Picture();
const rejecting = new RejectDialog(store);
const modifying = new ModifyDialog(store);

let questions = new Map();
let current = null;
let isStoring = false;

async function start() {
  const overview = await load();
  document.title = `${overview.folder} – CV-Bench review`;
  byId("folder").textContent = overview.folder;
  byId("reviewer").textContent = `Reviewer: ${overview.reviewer}`;
  byId("reviewer").title = overview.log;
  if (location.hash) {
    await showNamed();
    return;
  }
  const undecided = browser.undecided({ fromStart: true });
  await show((undecided ?? overview.questions[0]).idx);
  if (!undecided) {
    say("All questions are decided.");
  }
}

// The question whose number the address ends with; of an unknown number, no other is shown in its place.
async function showNamed() {
  const name = location.hash.slice(1);
  const named = [...questions.values()].find((question) => String(question.idx) === name);
  if (named) {
    await show(named.idx);
    return;
  }
  restoreAddress();
  say(`There is no question ${name}; choose one in the list.`, true);
}

function restoreAddress() {
  if (current) {
    history.replaceState(null, "", `#${current.idx}`);
  }
}

async function load() {
  const overview = await loadOverview();
  questions = new Map(overview.questions.map((question) => [question.idx, question]));
  byId("notices").replaceChildren(...overview.notices.map((notice) => element("p", {}, notice)));
  browser.load(overview.questions);
  showProgress(overview.questions);
  return overview;
}

async function show(idx) {
  current = questions.get(idx);
  browser.mark(idx);
  restoreAddress();
  showQuestion(current);
  picture.wait();
  byId("geometry").replaceChildren();
  byId("caption").textContent = current.file;
  byId("picture-notes").textContent = "";
  say("");
  const asked = current;
  try {
    const details = await loadDetails(idx);
    if (asked === current) {
      picture.show(current, details);
      showDetails(current, details);
      fetchAhead();
    }
  } catch (error) {
    if (asked === current) {
      picture.fail(error.message);
    }
  }
}

// The next picture is decoded by the time it is wanted.
function fetchAhead() {
  const next = browser.neighbour(1);
  if (next) {
    new Image().src = pictureUrl(next.idx);
  }
}

// Stores a decision and goes on to the next undecided question; gives null, or what was wrong.
async function store(decision) {
  if (isStoring) {
    return "The last decision is still being stored.";
  }
  setStoring(true);
  try {
    const { line } = await storeDecision(decision);
    settle(line);
  } catch (error) {
    say(error.message, true);
    return error.message;
  } finally {
    setStoring(false);
  }
  const next = browser.undecided();
  if (next) {
    show(next.idx);
  } else {
    showDecision(current);
    sayOfList("All questions of this list are decided.");
  }
  return null;
}

// A key pressed twice must not accept a question that nobody has seen, nor one that the filters have hidden since.
function accept() {
  if (picture.isWaiting) {
    say("The picture is not there yet.");
  } else if (!browser.has(current.idx)) {
    say(`Question ${current.idx} is not in the list; change the filters, or go to one that is.`, true);
  } else if (canBeKept()) {
    store({ idx: current.idx, decision: "accept" });
  }
}

function modify() {
  if (canBeKept()) {
    modifying.open(current);
  }
}

function canBeKept() {
  if (picture.isBroken) {
    say("The picture cannot be shown: mend it, or reject the question.", true);
  }
  return !picture.isBroken;
}

async function undo() {
  if (isStoring) {
    return;
  }
  setStoring(true);
  try {
    const { line, taken_back: taken } = await takeBack();
    settle(line);
    if (!browser.has(line.idx)) {
      browser.filter(); // it is undecided again, which the list may be of
    }
    show(line.idx);
    say(`Taken back: ${taken.decision} of question ${taken.idx}.`);
  } catch (error) {
    say(error.message, true);
  } finally {
    setStoring(false);
  }
}

function settle(line) {
  const question = questions.get(line.idx);
  question.decision = line.decision === "withdraw" ? null : line;
  browser.update(question);
  showProgress([...questions.values()]);
}

function setStoring(value) {
  isStoring = value;
  for (const id of ["accept", "modify", "reject", "undo"]) {
    byId(id).disabled = value;
  }
}

function say(text, isError = false) {
  byId("message").textContent = text;
  byId("message").classList.toggle("error", isError);
}

function sayOfList(text) {
  say(browser.isEmpty ? "No question matches the filters." : text);
}

function step(count) {
  const next = browser.neighbour(count);
  if (next) {
    show(next.idx);
  } else {
    sayOfList(count > 0 ? "This is the last question of the list." : "This is the first question of the list.");
  }
}

function toUndecided() {
  const next = browser.undecided({ fromStart: true });
  if (next) {
    show(next.idx);
  } else {
    sayOfList("All questions of this list are decided.");
  }
}

function whereShown(decide) {
  if (current) {
    decide();
  } else {
    say("No question is shown; choose one in the list.", true);
  }
}

const ACTIONS = {
  accept: () => whereShown(accept),
  modify: () => whereShown(modify),
  reject: () => whereShown(() => rejecting.open(current)),
  undo,
  previous: () => step(-1),
  next: () => step(1),
  "help-button": () => byId("help-dialog").showModal(),
};

const KEYS = {
  a: ACTIONS.accept,
  m: ACTIONS.modify,
  r: ACTIONS.reject,
  u: undo,
  n: ACTIONS.next,
  ArrowRight: ACTIONS.next,
  p: ACTIONS.previous,
  ArrowLeft: ACTIONS.previous,
  f: toUndecided,
  b: () => picture.toggle("boxes"),
  c: () => picture.toggle("cuboids"),
  o: () => picture.toggle("others"),
  g: () => picture.toggleAll(),
  "/": () => byId("filter-text").focus(),
  "?": ACTIONS["help-button"],
};

for (const [id, action] of Object.entries(ACTIONS)) {
  byId(id).addEventListener("click", action);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) {
    return;
  }
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") {
      event.preventDefault(); // else the browser empties the search, but the list stays as it was
      browser.leaveSearch(event.target);
    }
    return;
  }
  const action = KEYS[event.key];
  if (action && questions.size > 0) {
    event.preventDefault();
    action();
  }
});

window.addEventListener("hashchange", () => {
  if (document.querySelector("dialog[open]")) {
    restoreAddress(); // what is being decided stays in sight
  } else if (location.hash && questions.size > 0) {
    showNamed();
  }
});

// Another tab, or another server of the same reviewer, may have decided meanwhile.
document.addEventListener("visibilitychange", async () => {
  if (document.visibilityState === "visible" && current && !isStoring) {
    try {
      await load();
      current = questions.get(current.idx);
      browser.mark(current.idx);
      showDecision(current);
    } catch (error) {
      say(error.message, true);
    }
  }
});

start().catch((error) => say(error.message, true));
