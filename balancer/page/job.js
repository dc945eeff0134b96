// One job: what it is, why it is where it is, its life as a timeline, its attempts, and the end of what it has printed.
// Asked again with each snapshot while it lives.

import {Refused, ask} from "./api.js";
import {
  clock, count, duration, elementsOf, heading, jobLink, make, named, nameLine, plural, printed, reasonOf, say,
  stateChip, styleOf, wallOf,
} from "./dom.js";

const LABEL_CHARACTERS = 17; // of EXPLAIN's pages
const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const ASK_AGAIN_MS = 2_000;
const DEPENDENCIES_SHOWN = 20;

export function jobView(ticket) {
  const parts = make("div", {}, make("p.empty", {}, "Looking …"));
  const told = make("p.hidden", {role: "status"});
  const title = make("h1", {id: "job"}, "Job ", named(ticket));
  const element = make("article.job", {"aria-labelledby": "job"}, title, told, parts);
  const path = `jobs/${encodeURIComponent(ticket)}`;
  const leaving = new AbortController();
  let [asking, ended, askedAt, shown, known] = [false, false, 0, "", null];

  async function load() {
    asking = true;
    askedAt = performance.now();
    try {
      const job = await ask(path, leaving.signal);
      const same = JSON.stringify(job) === known?.job; // then nothing has happened, and nobody has to look for it
      const [life, output] = await Promise.all([
        same ? known.life : ask(`${path}/events`, leaving.signal),
        isArray(job) ? null : ask(`${path}/output`, leaving.signal).catch((problem) => problem),
      ]);
      known = {job: JSON.stringify(job), life};
      ended = ENDED.has(job.state) && Boolean(job.ended);
      const now = JSON.stringify([job, life, output]);
      if (now !== shown) replace(sections(job, life, output));
      say(told, job.state);
      shown = now;
    } catch (problem) {
      if (leaving.signal.aborted) return;
      if (!(problem instanceof Refused)) throw problem;
      if (problem.code === "UNAUTHORIZED" || (problem.code === "NOT_REACHED" && shown)) return;
      const words = `${problem.message[0].toUpperCase()}${problem.message.slice(1)}.`;
      if (shown !== words) parts.replaceChildren(make("p.notice", {role: "alert"}, named(words)));
      shown = words;
    } finally {
      asking = false;
    }
  }

  /** New sections; whoever reads an output in the middle goes on where he was. */
  function replace(sections) {
    const places = new Map([...parts.querySelectorAll("[data-keep]")].map((each) =>
      [each.dataset.keep, [each.scrollTop, document.activeElement === each]]));
    parts.replaceChildren(...sections);
    for (const each of parts.querySelectorAll("[data-keep]")) {
      const [top, focused] = places.get(each.dataset.keep) ?? [each.scrollHeight, false];
      each.scrollTop = top;
      if (focused) each.focus({preventScroll: true});
    }
  }

  function show() {
    if (!asking && !ended && performance.now() - askedAt >= ASK_AGAIN_MS) load();
  }

  load();
  return {element, title: ticket.slice(0, 40), show, close: () => leaving.abort()};
}

const isArray = (job) => job.count !== undefined; // its elements run and print, and have tickets of their own

function sections(job, life, output) {
  return [
    headline(job),
    explanation(job.explanation),
    section("Its life", isArray(job) ? null : strip(job, life.events), timeline(job, life)),
    job.attempts.length ? section(plural(job.attempts.length, "attempt"), attempts(job.attempts)) : null,
    ...(isArray(job) ? [elements(job)] : outputs(output)),
    section("What it is", facts(job)),
  ].filter(Boolean);
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), ...children);
}

function elements(job) {
  const first = /^\d+/.exec(job.array ?? "")?.[0];
  const example = first && jobLink(`${job.ticket}_${first}`);
  const tickets = example ? ["Each has a ticket of its own, beginning with ", example, "."] : [];
  return section("Its elements", make("p", {}, `An ${elementsOf(job)}. `, ...tickets));
}

function headline(job) {
  return make("p.headline", {}, stateChip(job.state, job),
    nameLine(job),
    elementsOf(job) || null,
    job.line ? make("code.command", {}, named(job.line)) : null);
}

/** EXPLAIN's page, which is wrapped for terminals: a sentence, then labels with their texts. */
function explanation({text}) {
  const lines = text.trimEnd().split("\n");
  const end = lines.findIndex((line) => line.endsWith(".")) + 1;
  const first = lines.splice(0, end || 1).join(" ");
  const list = make("dl.facts");
  for (const line of lines) {
    const label = line.slice(0, LABEL_CHARACTERS).trim();
    if (label) list.append(make("div", {}, make("dt", {}, label), make("dd")));
    const place = list.lastElementChild?.lastElementChild;
    place?.append(`${place.textContent ? " " : ""}${named(line.slice(LABEL_CHARACTERS).trim()).textContent}`);
  }
  return section("Why", make("p.why", {}, named(first)), list.children.length ? list : null);
}

// --- its life -------------------------------------------------------------------------------------------------------

const LATER = {retried: "queued", submitted: "queued"}; // what a job is after an event that is no state

function stateAfter({event}) {
  const word = event.replace(/^job\./, "");
  return LATER[word] ?? word;
}

/** A bar of the states that it was in, as wide as they were long. What it says, the list below says in words. */
function strip(job, events) {
  if (!events.length) return null;
  const bar = make("div.strip", {"aria-hidden": "true"});
  events.forEach((event, at) => {
    const state = stateAfter(event);
    if (ENDED.has(state)) return;
    const until = at + 1 < events.length ? wallOf(events[at + 1].at) : Date.now() / 1000;
    const part = make(`div.${styleOf(state)}`);
    part.style.flexGrow = Math.max(0, until - wallOf(event.at));
    bar.append(part);
  });
  if (ENDED.has(job.state)) bar.append(make(`div.end.${job.state}`));
  return bar;
}

function timeline(job, {events, whole}) {
  if (!events.length) return make("p.empty", {}, "Its events are too long ago.");
  const began = job.submitted ? wallOf(job.submitted) : wallOf(events[0].at);
  const list = make("ol.timeline", {}, ...events.map((event) => {
    const at = wallOf(event.at);
    return make(`li.${styleOf(stateAfter(event))}`, {},
      make("time", {datetime: event.at}, clock(at, true)),
      make("span.after", {}, `+${duration(Math.max(0, at - began))}`),
      make("span.what", {}, ...sentence(event)));
  }));
  return make("div", {}, whole ? null : make("p.empty", {}, "What was before is too long ago."), list);
}

function sentence({event, attempt, node, reason, exit, seconds, wait_s: wait}) {
  const word = event.replace(/^job\./, "");
  const on = node ? [" on ", named(node)] : [];
  const number = attempt ? `, attempt ${attempt}` : "";
  const why = reason === "submitted" ? "" : reasonOf({reason, exit});
  const cause = why && word !== "succeeded" ? `: ${why}` : "";
  const more = [
    seconds !== undefined && `ran ${duration(seconds)}`,
    wait !== undefined && `tried again in ${duration(wait)}`,
  ].filter(Boolean).join(", ");
  return [make("b", {}, word), ...on, number, cause, more && ` (${more})`].filter(Boolean);
}

// --- attempts, output, facts ----------------------------------------------------------------------------------------

function attempts(rows) {
  const headings = ["Attempt", "State", "Node", "Ran", "Ended"];
  return make("table.attempts", {},
    make("thead", {}, make("tr", {}, ...headings.map(heading))),
    make("tbody", {}, ...rows.map((row) => make("tr", {},
      make("th", {scope: "row"}, row.attempt),
      make("td", {}, stateChip(row.state, row)),
      make("td", {}, row.node ? named(row.node) : "–"),
      make("td", {}, row.seconds === undefined ? "–" : duration(row.seconds)),
      make("td.wide", {}, row.ended ? clock(wallOf(row.ended)) : "–")))));
}

function outputs(output) {
  if (output instanceof Error) {
    return [section("Output", make("p.empty", {}, `It cannot be shown: ${output.message}.`))];
  }
  const streams = [["Standard output", output.stdout], ["Standard error", output.stderr]];
  const printedTo = streams.filter(([, {bytes}]) => bytes);
  if (!printedTo.length) return [section("Output", make("p.empty", {}, "It has printed nothing."))];
  return printedTo.map(([title, {text, bytes, cut_bytes: cut}]) => section(title,
    cut ? make("p.note", {}, `The end of ${count(bytes)} bytes; jobyard result has all of them.`) : null,
    make("pre", {tabindex: "0", role: "region", "aria-label": title, "data-keep": title}, printed(text))));
}

function facts(job) {
  const rows = [
    ["kind", job.kind],
    ["line", job.line && make("code", {}, named(job.line), job.line_cut ? " …" : "")],
    ["submitted", job.submitted && clock(wallOf(job.submitted))],
    ["group", job.group && named(job.group)],
    ["key", job.key && named(job.key)],
    ["array", job.array],
    ["priority", job.priority],
    ["slots", job.slots],
    ["timeout", job.timeout_s && duration(job.timeout_s)],
    ["retries", job.retries],
    ["crash limit", job.crash_limit],
    ["waits for", job.after?.length && dependencies(job.after)],
    ["body", job.body_bytes && `${count(job.body_bytes)} bytes`],
  ].filter(([, value]) => value !== undefined && value !== null && value !== 0 && value !== "");
  const pair = ([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value));
  return make("dl.facts", {}, ...rows.map(pair));
}

function dependencies(tickets) {
  const links = tickets.slice(0, DEPENDENCIES_SHOWN).flatMap((ticket) => [jobLink(ticket), " "]);
  const more = tickets.length - DEPENDENCIES_SHOWN;
  return make("span", {}, ...links, more > 0 ? `and ${count(more)} more` : "");
}
