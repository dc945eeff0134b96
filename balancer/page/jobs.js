// Jobs of one state, page by page, the newest first: where they are, or why they wait.

import {Refused, ask} from "./api.js";
import {
  ago, duration, elementsOf, heading, jobLink, make, named, nameLine, reasonOf, stateChip, wallOf, whereOnPhones,
} from "./dom.js";

const PAGE = 50;

export function jobsView(state) {
  const known = /^[a-z]+$/.test(state);
  const body = make("tbody");
  const table = make("table.jobs", {hidden: ""}, make("thead", {}, make("tr", {},
    ...["Job", "What it does or waits for", "Where", "Submitted"].map(heading))), body);
  const more = make("button", {type: "button", hidden: ""}, "Show more");
  const told = make("p.empty", {role: "status"}, "Looking …");
  const title = known ? `Jobs: ${state}` : "Jobs";
  const element = make("section", {"aria-labelledby": "jobs"},
    make("h1", {id: "jobs"}, make("span", {}, "Jobs "), known ? stateChip(state) : null), told, table, more);
  let cursor = null;

  async function load() {
    more.disabled = true;
    try {
      const wanted = new URLSearchParams({limit: PAGE, ...(state && {state}), ...(cursor && {cursor})});
      const page = await ask(`jobs?${wanted}`);
      body.append(...page.jobs.map(row));
      cursor = page.cursor;
      more.hidden = cursor === null;
      table.hidden = !body.children.length;
      told.textContent = body.children.length ? "" : cursor ? "None among those looked at so far." : "There are none.";
    } catch (problem) {
      if (!(problem instanceof Refused)) throw problem;
      told.textContent = `That did not work: ${problem.message}.`;
    }
    more.disabled = false;
  }

  more.addEventListener("click", load);
  load();
  return {element, title};
}

function row(job) {
  const took = job.seconds === undefined ? "" : ` · ran ${duration(job.seconds)}`;
  const waits = elementsOf(job) || (job.state === "succeeded" ? "done" : reasonOf(job) || job.state);
  return make("tr", {},
    make("th", {scope: "row"}, jobLink(job.ticket), nameLine(job)),
    make("td", {}, waits + took, whereOnPhones(job)),
    make("td.wide", {}, job.node ? named(job.node) : "–"),
    make("td.when", {}, job.submitted ? ago(Math.max(0, Date.now() / 1000 - wallOf(job.submitted))) : "–"));
}
