// Jobs of one state, page by page, the newest first: where they are, or why they wait. The first page is kept up to
// date for as long as nobody has asked for more.

import {Refused, ask} from "./api.js";
import {
  ago, duration, elementsOf, heading, jobLink, keep, make, named, nameLine, reasonOf, say, stateChip, wallOf,
  whereOnPhones,
} from "./dom.js";

const PAGE = 50;
const ASK_AGAIN_MS = 3_000;

export function jobsView(state) {
  const known = /^[a-z]+$/.test(state);
  const body = make("tbody");
  const headings = ["Job", "What it does or waits for", "Where", "Submitted"];
  const table = make("table.jobs", {hidden: ""}, make("thead", {}, make("tr", {}, ...headings.map(heading))), body);
  const more = make("button", {type: "button", hidden: ""}, "Show more");
  const told = make("p.empty", {role: "status"}, "Looking …");
  const title = known ? `Jobs: ${state}` : "Jobs";
  const element = make("section", {"aria-labelledby": "jobs"},
    make("h1", {id: "jobs"}, "Jobs ", known ? stateChip(state) : null), told, table, more);
  const leaving = new AbortController();
  let [jobs, cursor, pages, asking, askedAt] = [[], null, 0, false, 0];

  /** The first page again, or with `next` the one behind what is shown. */
  async function load(next) {
    if (asking) return;
    asking = true;
    askedAt = performance.now();
    try {
      const wanted = new URLSearchParams({limit: PAGE, ...(state && {state}), ...(next && cursor && {cursor})});
      const page = await ask(`jobs?${wanted}`, leaving.signal);
      jobs = next ? [...jobs, ...page.jobs] : page.jobs;
      pages = next ? pages + 1 : 1;
      cursor = page.cursor;
      show();
    } catch (problem) {
      if (leaving.signal.aborted || problem.code === "UNAUTHORIZED") return;
      if (!(problem instanceof Refused)) throw problem;
      if (!pages) say(told, `That did not work: ${problem.message}.`);
    } finally {
      asking = false;
    }
  }

  function show() {
    const unique = [...new Map(jobs.map((job) => [job.ticket, job])).values()]; // one that ended between two pages
    keep(body, unique, ({ticket}) => ticket, row, update);
    more.hidden = cursor === null;
    table.hidden = !unique.length;
    say(told, unique.length ? "" : cursor ? "None among those looked at so far." : "There are none.");
  }

  more.addEventListener("click", () => load(true));
  load(false);
  return {
    element,
    title,
    show: () => pages === 1 && performance.now() - askedAt >= ASK_AGAIN_MS && load(false),
    close: () => leaving.abort(),
  };
}

function row(job) {
  return make("tr", {}, make("th", {scope: "row"}, jobLink(job.ticket), nameLine(job)),
    make("td"), make("td.wide"), make("td.when"));
}

function update(row, job) {
  const now = JSON.stringify(job);
  const [, does, where, when] = row.children;
  say(when, job.submitted ? ago(Math.max(0, Date.now() / 1000 - wallOf(job.submitted))) : "–");
  if (row.dataset.job === now) return;
  row.dataset.job = now;
  const took = job.seconds === undefined ? "" : ` · ran ${duration(job.seconds)}`;
  const why = elementsOf(job) || (job.state === "succeeded" ? "done" : reasonOf(job) || job.state);
  does.replaceChildren(why + took, ...[whereOnPhones(job)].filter(Boolean));
  where.replaceChildren(job.node ? named(job.node) : "–");
}
