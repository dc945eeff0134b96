// The cluster at a glance: a verdict in words, jobs by state, lines, nodes, and what failed lately.

import {
  ago, clock, count, duration, heading, jobLink, keep, make, named, nameLine, plural, reasonOf, say, short,
  whereOnPhones,
} from "./dom.js";
import {lineChart} from "./lines.js";

const STATES = ["queued", "dispatched", "running", "scheduled", "blocked", "retrying"];
const ENDS = ["succeeded", "failed", "cancelled"];
const SLOTS_DRAWN_MAX = 32; // one by one
const STORE_EARLY = 0.6; // from here on ended jobs expire early; at 0.75 no job is taken

export function clusterView(history) {
  const verdict = make("div.verdict");
  const figures = make("dl.figures");
  const waiting = lineChart("Queue", (number) => count(Math.round(number)), [
    {name: "waiting", valueOf: (second) => second.queued + second.dispatched, style: "queued"},
    {name: "running", valueOf: (second) => second.running, style: "running"},
  ]);
  const passing = lineChart("Throughput", (number) => `${short(number)}/s`, [
    {name: "submitted", valueOf: (second) => second.submitted, style: "submitted"},
    {name: "succeeded", valueOf: (second) => second.succeeded, style: "succeeded"},
    {name: "failed", valueOf: (second) => second.failed, style: "failed"},
  ]);
  const nodes = nodesTable();
  const failures = failuresTable();
  const element = make("div.cluster", {hidden: ""},
    make("h1.hidden", {}, "The cluster"),
    verdict,
    figures,
    make("div.charts", {}, waiting.element, passing.element),
    nodes.element,
    failures.element);

  function show(snapshot) {
    element.hidden = false;
    showVerdict(verdict, snapshot, history);
    showFigures(figures, snapshot);
    waiting.show(history.seconds, snapshot.at);
    passing.show(history.seconds, snapshot.at);
    nodes.show(snapshot);
    failures.show(history.lastFailures(), snapshot);
  }

  /** No verdict of the past: it would be read as one of now. */
  function lost(sinceWall) {
    showFindings(verdict, [["bad", `No connection to the balancer since ${clock(sinceWall)}. Below is what was then.`,
      "Nodes go on running what they have, and take jobs in: none is lost. Start the balancer again, or see whether " +
      "this machine reaches it."]]);
  }
  return {element, title: "", show, lost};
}

// --- is it well? ----------------------------------------------------------------------------------------------------

/** [kind, what is the case, what to do], the gravest first. */
function findings({overview, justStarted, up, at}, history) {
  const {nodes, jobs, store_fraction: full, ready} = overview;
  const names = (some) => some.slice(0, 3).map((node) => node.name).join(", ") + (some.length > 3 ? ", …" : "");
  const connected = nodes.filter((node) => node.connected);
  const away = nodes.filter((node) => !node.connected && node.state !== "lost");
  const lost = nodes.filter((node) => node.state === "lost");
  const draining = connected.filter((node) => node.state === "draining");
  const found = [];
  if (!ready) {
    found.push(["bad", "The balancer takes no jobs: its disk or its store is full.",
      "Nodes keep what they take in. Make room, or raise JOBYARD_STORE_MAX and start it again."]);
  } else if (full >= STORE_EARLY) {
    found.push(["worse", `The store is ${Math.round(full * 100)} % full.`,
      "Ended jobs expire early. Raise JOBYARD_STORE_MAX, or lower JOBYARD_RETENTION."]);
  }
  if (justStarted && nodes.length) {
    found.push(["news", `The balancer was started ${duration(Math.round(up))} ago.`,
      "Jobs are as it left them, and what runs goes on. What has ended is counted anew, and nodes come back within " +
      "seconds."]);
  }
  if (!nodes.length) {
    found.push(["news", "No node has come yet.",
      "Start one: jobyard-node HOST PORT, with the host and port of this balancer."]);
  } else if (!connected.length && !justStarted) {
    found.push(["bad", "No node is connected.", `${plural(live(jobs), "job")} wait. Look at the nodes' logs.`]);
  }
  if (lost.length) {
    found.push(["bad", `${plural(lost.length, "node")} lost: ${names(lost)}.`,
      "What they ran is run again elsewhere. Start them again, or leave them away: nothing else waits for them."]);
  }
  if (away.length && !justStarted && connected.length) {
    found.push(["worse", `Not connected: ${names(away)}.`,
      "Their jobs stay theirs until JOBYARD_NODE_TIMEOUT is over."]);
  }
  const [failed, ended] = history.endsOfTheLastMinute(at);
  if (failed >= 3 && failed >= ended / 5) {
    found.push(["worse", `${failed} of ${plural(ended, "job")} that ended in the last minute failed.`,
      "Below is why; a ticket leads to what it has printed."]);
  }
  if (draining.length) found.push(["news", `Draining: ${names(draining)}.`, "They take no new jobs until UNDRAIN."]);
  return found;
}

function live(jobs) {
  return Object.values(jobs).reduce((sum, number) => sum + number, 0);
}

function showVerdict(element, snapshot, history) {
  const found = findings(snapshot, history);
  const {slots, nodes, jobs, oldest_queued_s: oldest} = snapshot.overview;
  if (!found.some(([kind]) => kind !== "news") && nodes.some((node) => node.connected)) {
    const waiting = jobs.queued + jobs.dispatched;
    const since = jobs.queued ? `, the oldest of the queue for ${duration(oldest)}` : "";
    const waits = waiting ? `; ${plural(waiting, "job waits", "jobs wait")}${since}` : "";
    const busy = `${slots.busy} of ${plural(slots.busy + slots.free + slots.away, "slot")} busy`;
    found.unshift(["good", live(jobs) ? `All is well: ${busy}${waits}.` : "All is well, and nothing to do.", ""]);
  }
  showFindings(element, found);
}

function showFindings(element, found) {
  keep(element, found, ([kind, text]) => `${kind} ${text.replace(/\d+/g, "")}`,
    () => make("p.finding", {}, make("strong"), " ", make("span")),
    (row, [kind, text, advice]) => {
      row.dataset.kind = kind;
      say(row.children[0], named(text).textContent);
      say(row.children[1], advice);
    });
}

// --- jobs by state --------------------------------------------------------------------------------------------------

function showFigures(element, {overview, program}) {
  const of = (state, number, ended) => ({state, number, ended});
  const figures = [
    ...STATES.map((state) => of(state, overview.jobs[state] ?? 0, false)),
    ...ENDS.map((state) => of(state, overview.ended_since_start[state] ?? 0, true)),
  ];
  const since = `since ${new Date(program.started_wall * 1000).toLocaleString("sv")}`;
  keep(element, figures, ({state}) => state,
    ({state}) => make("div", {}, make("dt", {}, make("a", {href: `#jobs/${state}`}, state)), make("dd")),
    (row, {state, number, ended}) => {
      row.className = number ? state : "none";
      if (ended) row.title = since;
      say(row.lastElementChild, count(number));
    });
}

// --- nodes ----------------------------------------------------------------------------------------------------------

function nodesTable() {
  const body = make("tbody");
  const table = make("table.nodes", {},
    make("thead", {}, make("tr", {}, ...["Node", "Running", "Waiting there"].map(heading))), body);
  const empty = make("p.empty", {}, "No node has connected to this balancer yet.");
  const element = make("section", {"aria-labelledby": "nodes"}, make("h2", {id: "nodes"}, "Nodes"), empty, table);

  function show({overview: {nodes}, justStarted}) {
    table.hidden = !nodes.length;
    empty.hidden = nodes.length > 0;
    const longest = Math.max(1, ...nodes.map(waitingPerSlot));
    keep(body, nodes, (node) => node.id, nodeRow, (row, node) => {
      const {slots, running, waiting} = node;
      const state = node.connected ? node.state : node.state === "lost" ? "lost" : "away";
      row.dataset.state = state;
      say(row.querySelector(".how"), howItIs(state, node, justStarted));
      row.style.setProperty("--slots", slots <= SLOTS_DRAWN_MAX ? Math.max(1, slots) : 1);
      fill(row.querySelector(".bar.running"), slots ? running / slots : 0);
      say(row.querySelector(".running-words"), `${running} of ${plural(slots, "slot")}`);
      fill(row.querySelector(".bar.waiting"), waitingPerSlot(node) / longest);
      say(row.querySelector(".waiting-words"),
        waiting ? `${count(waiting)} · ${(waiting / Math.max(1, slots)).toFixed(1)} per slot` : "none");
    });
  }
  return {element, show};
}

function waitingPerSlot({waiting, slots}) {
  return waiting / Math.max(1, slots);
}

function howItIs(state, {last_seen_s: seen}, justStarted) {
  if (state === "lost") return `lost · heard ${ago(seen)}`;
  if (state === "away") return justStarted ? "not back yet" : `not connected · heard ${ago(seen)}`;
  return state === "draining" ? "draining" : seen > 5 ? `heard ${ago(seen)}` : "alive";
}

function nodeRow(node) {
  const bar = (kind) => make("td", {}, make(`div.bar.${kind}`, {"aria-hidden": "true"}, make("div")),
    make(`span.${kind}-words`));
  return make("tr", {},
    make("th", {scope: "row"}, make("span.name", {}, named(node.name)), make("span.how")),
    bar("running"),
    bar("waiting"));
}

function fill(bar, fraction) {
  bar.firstElementChild.style.width = `${(Math.min(1, fraction) * 100).toFixed(1)}%`;
}

// --- failures -------------------------------------------------------------------------------------------------------

function failuresTable() {
  const body = make("tbody");
  const table = make("table.failures", {},
    make("thead", {}, make("tr", {}, ...["Job", "Why", "Where", "When"].map(heading))), body);
  const all = make("p", {}, make("a", {href: "#jobs/failed"}, "All failed jobs"));
  const empty = make("p.empty", {}, "No job has failed as far back as results are kept.");
  const element = make("section", {"aria-labelledby": "failures"},
    make("h2", {id: "failures"}, "Failed lately"), empty, table, all);

  function show(failures, {at}) {
    table.hidden = all.hidden = !failures.length;
    empty.hidden = failures.length > 0;
    keep(body, failures, ({ticket, attempt, name}) => `${ticket} ${attempt} ${name ?? ""}`, (failure) =>
      make("tr", {},
        make("th", {scope: "row"}, jobLink(failure.ticket), nameLine(failure)),
        make("td", {}, reasonOf(failure) || "failed", whereOnPhones(failure)),
        make("td.wide", {}, failure.node ? named(failure.node) : "–"),
        make("td.when")),
      (row, failure) => say(row.lastElementChild, ago(Math.max(0, at - failure.at))));
  }
  return {element, show};
}
