// What the page asks of its server. A request that fails is an Error whose message can be shown.

let token = "";
let run = "";

export async function loadOverview() {
  const overview = await ask("/api/questions");
  token = overview.token;
  run = overview.run;
  return overview;
}

export function loadDetails(idx) {
  return ask(`/api/questions/${idx}`);
}

export function pictureUrl(idx) {
  return `/pictures/${idx}?run=${run}`;
}

export function storeDecision(decision) {
  return post("/api/decisions", decision);
}

export function takeBack() {
  return post("/api/undo", {});
}

function post(path, body) {
  const headers = { "content-type": "application/json", "x-review-token": token };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; start the command again and load this page anew.");
  }
  let reply;
  try {
    reply = await response.json();
  } catch {
    throw new Error(`The server failed (status ${response.status}); its terminal says why.`);
  }
  if (!response.ok) {
    throw new Error(reply.error);
  }
  return reply;
}
