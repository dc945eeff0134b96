// What the page remembers beyond one snapshot: the seconds of the last minutes, and the last failures. It outlives the
// balancer, which counts seconds anew when it is started: what it did not see stays a gap.

import {wallOf} from "./dom.js";

const SECONDS_KEPT = 600;
const FAILURES_SHOWN = 12;

export class History {
  constructor() {
    this.seconds = new Map(); // by their moment
    this.failures = new Map(); // by ticket and attempt
  }

  /** Seconds and jobs as the API has them. */
  catchUp(seconds, jobs) {
    seconds.forEach((second) => this.seconds.set(second.at_wall, second));
    jobs.filter((job) => job.ended).forEach((job) => this.#fail({...job, at: wallOf(job.ended)}));
    this.#forget();
  }

  add(snapshot) {
    if (snapshot.second) this.seconds.set(snapshot.second.at_wall, snapshot.second);
    snapshot.failures.forEach((failure) => this.#fail(failure));
    this.#forget();
  }

  /** Whether a failure is known from the stream alone, which does not tell names. */
  get lacksNames() {
    return this.lastFailures().some((failure) => !failure.submitted);
  }

  /** [failed, all] of the jobs that ended in the last minute. */
  endsOfTheLastMinute(now) {
    const ends = [...this.seconds.values()].filter(({at_wall: at}) => at > now - 60);
    const sum = (...keys) => ends.reduce((all, second) => all + keys.reduce((some, key) => some + second[key], 0), 0);
    return [sum("failed"), sum("succeeded", "failed")];
  }

  /** The newest first. */
  lastFailures() {
    return [...this.failures.values()].sort((one, other) => other.at - one.at).slice(0, FAILURES_SHOWN);
  }

  #fail(failure) {
    const key = `${failure.ticket} ${failure.attempt ?? 0}`;
    if (!this.failures.get(key)?.submitted) this.failures.set(key, failure); // a job's own row says more
  }

  #forget() {
    const newest = Math.max(...this.seconds.keys());
    for (const at of this.seconds.keys()) if (at <= newest - SECONDS_KEPT) this.seconds.delete(at);
    const shown = new Set(this.lastFailures());
    for (const [key, failure] of this.failures) if (!shown.has(failure)) this.failures.delete(key);
  }
}
