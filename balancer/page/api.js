// The balancer's JSON API: single questions, and the stream of snapshots. Reads only.
//
// The token, where one is wanted, is kept in this tab's sessionStorage and sent as a header. EventSource has no
// headers, so the stream is read by fetch.

const TOKEN = "jobyard-token";
const SILENT_MS_MAX = 10_000; // the balancer sends something each second, or has gone

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What the API has refused; `code` is one of the client protocol's, or NOT_REACHED. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function request(path, signal) {
  const headers = token.get() ? {Authorization: `Bearer ${token.get()}`} : {};
  let response;
  try {
    response = await fetch(`api/v1/${path}`, {headers, signal, cache: "no-store"});
  } catch (problem) {
    if (signal?.aborted) throw problem;
    throw new Refused("NOT_REACHED", "the balancer cannot be reached");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Refused(told?.error?.code ?? "INTERNAL", told?.error?.message ?? `it answered ${response.status}`);
}

/** What a path answers; throws Refused. */
export async function ask(path, signal) {
  return (await request(path, signal)).json();
}

/** The data of each event of a stream, until it ends or `signal` is aborted; throws Refused where it cannot begin. */
export async function* follow(path, signal) {
  const own = new AbortController();
  const stop = () => own.abort();
  signal.addEventListener("abort", stop);
  let watch = setTimeout(stop, SILENT_MS_MAX);
  try {
    const reader = (await request(path, own.signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(stop, SILENT_MS_MAX);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data: "));
        if (lines.length) yield JSON.parse(lines.map((line) => line.slice(6)).join("\n"));
      }
    }
  } finally {
    clearTimeout(watch);
    signal.removeEventListener("abort", stop);
    own.abort();
  }
}
