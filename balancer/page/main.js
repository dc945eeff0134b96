// The dashboard: which view is shown (by the part of the address behind #), and the stream that keeps it up to date.
//
//     #               the cluster        cluster.js
//     #jobs/STATE     jobs of a state    jobs.js
//     #job/TICKET     the life of one    job.js
//
// A view is made once for its address and has `element`, `title`, and perhaps `show(snapshot)`, `lost(sinceWall)` and
// `close()`.

import {Refused, ask, follow, token} from "./api.js";
import {clusterView} from "./cluster.js";
import {clock, duration, say} from "./dom.js";
import {jobView} from "./job.js";
import {jobsView} from "./jobs.js";
import {History} from "./history.js";

const AGAIN_MS = 1_000; // between two tries to connect
const JUST_STARTED_S = 60;
const FAILED = "jobs?state=failed&limit=20";
const NAMES_AGAIN_MS = 3_000;

const byId = (id) => document.getElementById(id);
const main = byId("main");
const history = new History();
let view = null;
let last = null; // the last snapshot

// --- views ----------------------------------------------------------------------------------------------------------

function viewOf(address) {
  const [name, rest = ""] = address.split(/\/(.*)/s);
  if (name === "job") return jobView(decoded(rest));
  if (name === "jobs") return jobsView(decoded(rest));
  return clusterView(history);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function open() {
  const first = view === null;
  view?.close?.();
  view = viewOf(location.hash.slice(1));
  document.title = view.title ? `${view.title} – Jobyard` : "Jobyard";
  main.replaceChildren(view.element);
  if (last) view.show?.(last);
  if (last && document.body.classList.contains("stale")) view.lost?.(last.heardWall);
  if (!first) {
    scrollTo(0, 0);
    main.focus({preventScroll: true});
  }
}

addEventListener("hashchange", open);

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view is shown
  main.focus();
});

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const ticket = byId("ticket").value.trim();
  if (!ticket) return;
  const address = `#job/${encodeURIComponent(ticket)}`;
  if (location.hash === address) open();
  else location.hash = address;
});

// --- the stream -----------------------------------------------------------------------------------------------------

function connection(kind, text) {
  byId("connection").dataset.kind = kind;
  say(byId("connection"), text);
}

function lost(why) {
  const at = last ? ` since ${clock(last.heardWall)}` : "";
  connection("lost", `not connected${at}${why}; trying again`);
  document.body.classList.add("stale");
  if (last) view.lost?.(last.heardWall);
}

function show(snapshot) {
  const at = Date.parse(snapshot.overview.at) / 1000;
  const up = Math.max(0, at - snapshot.program.started_wall);
  last = {...snapshot, at, up, justStarted: up < JUST_STARTED_S, heardWall: Date.now() / 1000};
  document.body.classList.remove("stale");
  // Said aloud whenever it changes, so it does not tell seconds.
  connection("live", last.justStarted ? `live; started at ${clock(snapshot.program.started_wall)}` : "live");
  say(byId("version"), `balancer ${snapshot.program.version}, up ${duration(Math.round(up))}`);
  history.add(snapshot);
  view.show?.(last);
}

let namesAskedAt = 0;
async function askForNames(signal) {
  if (!history.lacksNames || performance.now() - namesAskedAt < NAMES_AGAIN_MS) return;
  namesAskedAt = performance.now();
  history.catchUp([], (await ask(FAILED, signal)).jobs);
}

/** Asks what the stream does not tell: what was before it. */
async function catchUp(signal) {
  const [throughput, failed] = await Promise.all([ask("throughput", signal), ask(FAILED, signal)]);
  history.catchUp(throughput.seconds, failed.jobs);
}

async function stay(signal) {
  while (!signal.aborted) {
    let why = "";
    try {
      await catchUp(signal);
      for await (const snapshot of follow("stream", signal)) {
        show(snapshot);
        await askForNames(signal);
      }
    } catch (problem) {
      if (problem instanceof Refused && problem.code === "UNAUTHORIZED") await askForToken();
      else if (problem instanceof Refused && problem.code !== "NOT_REACHED") why = ` (${problem.message})`;
      else if (!(problem instanceof Refused) && problem.name !== "AbortError" && !(problem instanceof TypeError)) {
        console.error(problem);
      }
    }
    if (signal.aborted) return;
    lost(why);
    await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
}

// Who cannot see the page needs no stream; and a browser has six connections to a host, over all of its tabs.
let visit = null;
function attend() {
  visit?.abort();
  if (document.hidden) return;
  visit = new AbortController();
  stay(visit.signal);
}
document.addEventListener("visibilitychange", attend);

// --- the token ------------------------------------------------------------------------------------------------------

/** Until somebody has given one. */
function askForToken() {
  connection("lost", "a token is wanted");
  byId("links").hidden = true;
  const [dialog, field] = [byId("asking"), byId("token")];
  say(byId("token-problem"), token.get() ? "The cluster does not know this token." : "");
  token.forget();
  field.value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      if (field.value) token.set(field.value);
      field.value = "";
      showToken();
      open();
      done();
    }, {once: true});
  });
}

/** A token can be forgotten; and where one is wanted, a plain link leads nowhere. */
function showToken() {
  byId("forget").hidden = !token.get();
  byId("links").hidden = Boolean(token.get());
}

byId("forget").addEventListener("click", () => {
  token.forget();
  location.reload();
});

showToken();
open();
attend();
