// What can go wrong, as a sentence of what happened and one of what to do.

export class Problem extends Error {
  /**
   * detail: the server's own words, for who runs it.  needsKey: a key would help.
   * isAway: waiting may help.  isLoss: the gateway was there.
   */
  constructor(what, advice, { detail = "", needsKey = false, isAway = false, isLoss = false } = {}) {
    super(what);
    Object.assign(this, { what, advice, detail, needsKey, isAway, isLoss });
  }
}

export const noKey = () =>
  new Problem("This gateway asks for an API key.", "Enter yours below.", { needsKey: true });

export const wrongKey = () =>
  new Problem("This gateway does not know that API key.", "Enter another one below.", {
    needsKey: true,
  });

export const gatewayAway = () =>
  new Problem("The gateway does not answer.", "Check your connection, and that it is running.", {
    isAway: true,
  });

export const serverAway = (detail) =>
  new Problem(
    "The speech server is not ready.",
    "It may be starting, or full. This page asks again every few seconds.",
    { detail, isAway: true },
  );

export const connectionLost = () =>
  new Problem(
    "The connection to the gateway broke.",
    "The text up to there is kept. Start again once the gateway is back.",
    { isLoss: true },
  );

export const unreadable = (name) =>
  new Problem(
    `This browser cannot read ${name}.`,
    "Recordings as WAV, FLAC, MP3, M4A or Ogg are read by most.",
  );

export const busy = () =>
  new Problem("A session is running.", "Stop it, then drop the recording again.");

export const microphoneGone = () =>
  new Problem("The microphone went away.", "Connect it again, then start anew.");

export const nothingHeard = () =>
  new Problem(
    "Nothing is heard.",
    "Check that the microphone is not muted, and that it is the one this browser uses.",
  );

/** Of what getUserMedia and AudioContext throw. */
export function ofMicrophone(error) {
  if (!navigator.mediaDevices?.getUserMedia) {
    return new Problem(
      "Browsers give the microphone only to pages over https, or on this very machine.",
      "Open this page that way, or drop a recording here instead.",
    );
  }
  const detail = `${error.name}: ${error.message}`;
  if (error.name === "NotAllowedError") {
    return new Problem(
      "This page may not use the microphone.",
      "Allow it beside the address of this page, then start again. Recordings work without.",
      { detail },
    );
  }
  if (error.name === "NotFoundError" || error.name === "OverconstrainedError") {
    return new Problem("No microphone was found.", "Connect one, then start again.", { detail });
  }
  return new Problem(
    "The microphone could not be opened.",
    "Another program may be using it: close that, then start again.",
    { detail },
  );
}

/** Of an error message of the gateway: {code, message}. */
export function ofServer({ code, message }) {
  const detail = message;
  if (code === "UNAVAILABLE" && message.includes("at capacity")) {
    return new Problem("The server is full.", "Try again when somebody else is done.", { detail });
  }
  if (code === "UNAVAILABLE" && message.includes("draining")) {
    return new Problem("This gateway is about to stop.", "Try again in a minute.", { detail });
  }
  const known = {
    UNAVAILABLE: ["The speech server does not answer.", "Try again in a minute."],
    RESOURCE_EXHAUSTED: ["As many sessions are open as may be.", "Try again in a moment."],
    NOT_FOUND: ["The session ended: nothing was sent for too long.", "Start again."],
    INVALID_ARGUMENT: ["The server does not take a setting.", "Change it, then start again."],
    UNAUTHENTICATED: ["This gateway does not know that API key.", "Enter another one below."],
  }[code] ?? ["The server failed at this.", "Start again; tell its operator if it happens often."];
  return new Problem(...known, { detail, needsKey: code === "UNAUTHENTICATED" });
}
