// Elements and words. Whatever comes from the cluster becomes text here, never markup: there is no innerHTML on this
// page, and its Content-Security-Policy (trusted types) would refuse one.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `make("p.note", {title: "…"}, "text", child)`. Attributes that are null are left out. */
export function make(what, attributes = {}, ...children) {
  const [name, ...classes] = what.split(".");
  return filled(document.createElement(name), classes, attributes, children);
}

export function makeSvg(what, attributes = {}, ...children) {
  const [name, ...classes] = what.split(".");
  return filled(document.createElementNS(SVG, name), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text only where it is another: what does not change is not laid out again, nor read aloud again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Brings the children of `parent` into line with `items`: one element each, kept under its key with its focus. */
export function keep(parent, items, keyOf, create, update) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const gone of known.values()) gone.remove();
  if (focused !== document.activeElement) focused?.focus({preventScroll: true}); // who is moved loses it
}

// --- what jobs name and print ---------------------------------------------------------------------------------------

// Controls, and what changes direction or cannot be seen: it could make one name look like another.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;
const COLOURS = /\u001b\[[0-9;:]*m/g;

function visible(character) {
  return `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
}

/** A name, or any one-line text, as an element that keeps its direction to itself. */
export function named(text) {
  return make("bdi", {}, String(text).replace(UNSEEN, visible));
}

/** What a job has printed: its lines stay, colours go, all else that cannot be seen is shown. */
export function printed(text) {
  return text.replace(COLOURS, "").replace(/\r\n?/g, "\n").replace(UNSEEN, (character) =>
    character === "\n" || character === "\t" ? character : visible(character));
}

export function jobLink(ticket) {
  return make("a.ticket", {href: `#job/${encodeURIComponent(ticket)}`}, named(ticket));
}

const HIDDEN_ON_PHONES = new Set(["Where", "Ended"]);

export function heading(text) {
  return make(HIDDEN_ON_PHONES.has(text) ? "th.wide" : "th", {scope: "col"}, text);
}

/** Under a ticket: what its client calls it. */
export function nameLine({name}) {
  return name ? make("span.name", {}, named(name)) : null;
}

/** Small screens have no room for a column of nodes. */
export function whereOnPhones({node}) {
  return node ? make("span.on-phones", {}, " on ", named(node)) : null;
}

/** The class of a state: its own word. */
export function styleOf(state) {
  return /^[a-z]+$/.test(state) ? state : "unknown";
}

/** A state on its colour; `job` says why it is in it. */
export function stateChip(state, job = {}) {
  const why = state === "succeeded" ? "" : reasonOf(job);
  return make(`span.state.${styleOf(state)}`, {}, state + (why && why !== state ? ` · ${why}` : ""));
}

const STATES = [
  "scheduled", "blocked", "queued", "dispatched", "running", "retrying", "succeeded", "failed", "cancelled",
];

/** Of an array: its elements by state; empty for any other job. */
export function elementsOf(job) {
  if (job.count === undefined) return "";
  const states = STATES.filter((state) => job[state]).map((state) => `${count(job[state])} ${state}`);
  return `array of ${plural(job.count, "job")}: ${states.join(", ")}`;
}

/** In words: why a job waits, or how it ended. */
export function reasonOf({reason, exit}) {
  const code = exit === undefined ? "" : `exit code ${exit}`;
  if (!reason || reason === "exit") return code;
  return reason.replaceAll("_", " ") + (code && ` · ${code}`);
}

// --- numbers and moments --------------------------------------------------------------------------------------------

export function count(number) {
  return number.toLocaleString("en");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function short(number) {
  return number >= 10 || Number.isInteger(number) ? count(Math.round(number)) : number.toFixed(1);
}

/** A span of time in two units at most: 0.12 s, 48 s, 3 min 5 s, 2 h 10 min, 4 d 3 h. */
export function duration(seconds) {
  if (seconds < 10) return `${Number(seconds.toFixed(seconds < 1 ? 3 : 1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86400, "d", 3600, "h");
}

function two(whole, large, largeName, small, smallName) {
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

export function ago(seconds) {
  return seconds < 1.5 ? "just now" : `${duration(Math.round(seconds))} ago`;
}

/** A moment on the clock of whoever looks: the time of today, with the date of other days. */
export function clock(wall, precise = false) {
  const date = new Date(wall * 1000);
  const parts = precise ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : "";
  const time = date.toLocaleTimeString("en-GB") + parts;
  const day = (each) => each.toLocaleDateString("sv");
  return day(date) === day(new Date()) ? time : `${day(date)} ${time}`;
}

/** Seconds since 1970 of what the API says: a number, or text as 2026-05-04T10:00:00.000Z. */
export function wallOf(said) {
  return typeof said === "number" ? said : Date.parse(said) / 1000;
}
