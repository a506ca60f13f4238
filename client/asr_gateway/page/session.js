// The gateway: what it offers, and one session over its WebSocket.

import * as problems from "./problems.js";

const KEY_SUBPROTOCOL = "openai-insecure-api-key."; // browsers send no headers with a WebSocket
const KEY_STORED = "asr-key";

export const key = {
  get: () => sessionStorage.getItem(KEY_STORED) ?? "",
  set: (value) => sessionStorage.setItem(KEY_STORED, value),
};

/** The server's languages, latencies, rates, ...  Throws a Problem. */
export async function fetchOffer() {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  let response;
  try {
    response = await fetch(new URL("v1/offer", document.baseURI), { headers, cache: "no-store" });
  } catch {
    throw problems.gatewayAway();
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) throw key.get() ? problems.wrongKey() : problems.noKey();
  throw problems.serverAway(answer.error?.message ?? `HTTP ${response.status}`);
}

/**
 * One session. Audio that is sent before the server is ready waits for it.
 *
 * on: {ready(offer), result(result), end(), problem(problem)}; the last two come once, one of them.
 */
export class Session {
  #socket;
  #on;
  #waiting = []; // messages, until the server is ready
  #isReady = false;
  #isOver = false;

  constructor(options, on) {
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = key.get() ? ["asr", KEY_SUBPROTOCOL + key.get()] : ["asr"];
    this.#on = on;
    this.#socket = new WebSocket(url, protocols);
    let opened = false;
    this.#socket.onopen = () => {
      opened = true;
      this.#socket.send(JSON.stringify(options));
    };
    this.#socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.#socket.onclose = async () => {
      if (!this.#isOver) this.#finish("problem", opened ? problems.connectionLost() : await why());
    };
  }

  /** pcm: Int16Array, at the rate of the options. */
  send(pcm) {
    this.#say(pcm);
  }

  /** Audio sent from now on is in this language. */
  setLanguage(language) {
    this.#say(JSON.stringify({ type: "language", language }));
  }

  /** No more audio comes: the rest of the text, then `end`. */
  end() {
    this.#say(JSON.stringify({ type: "end" }));
  }

  /** Bytes that are still to be sent: while there are many, the server is not done with others. */
  get backlog() {
    return this.#socket.bufferedAmount + this.#waiting.reduce((n, m) => n + (m.byteLength ?? 0), 0);
  }

  #say(message) {
    if (!this.#isReady) this.#waiting.push(message);
    else if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(message);
  }

  #hear(message) {
    if (message.type === "ready") {
      this.#isReady = true;
      this.#on.ready(message.server);
      for (const waiting of this.#waiting.splice(0)) this.#say(waiting);
    } else if (message.type === "result") {
      this.#on.result(message);
    } else if (message.type === "end") {
      this.#finish("end");
    } else if (message.type === "error") {
      this.#finish("problem", problems.ofServer(message));
    }
  }

  #finish(how, problem) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#waiting = [];
    this.#on[how](problem);
    this.#socket.close();
  }
}

/** Why a WebSocket was refused, which browsers do not tell. */
async function why() {
  try {
    await fetchOffer();
    return problems.connectionLost();
  } catch (problem) {
    return problem;
  }
}
