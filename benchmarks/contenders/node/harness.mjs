// What the contenders in Node share: the command line, and the commands of contenders/harness.py with its messages.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// benchmarks/tools.py has npm install the packages there
export const packages = createRequire(new URL("../../build/node/package.json", import.meta.url));

// The messages that may be published before the buffers of all sockets are looked at: looking costs, too.
const UNSEEN_BYTES_MAX = 256 * 1024;

export const now = () => Number(process.hrtime.bigint());
const nextTick = () => new Promise((resolve) => setImmediate(resolve));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function options() {
  const found = {};
  for (let at = 2; at < process.argv.length; at += 2) found[process.argv[at].slice(2)] = process.argv[at + 1];
  found.port = Number(found.port);
  if (found["tls-cert"]) found.tls = { cert: found["tls-cert"], key: found["tls-key"] };
  return found;
}

export const readTls = (tls) => ({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) });

function makeMessage(seq, dueNs, size) {
  const message = { seq, t: dueNs, id: seq % 100, pad: "" };
  const empty = `{"seq":${seq},"t":${dueNs},"id":${seq % 100},"pad":""}`;
  message.pad = "x".repeat(Math.max(0, size - empty.length));
  return JSON.stringify(message);
}

/**
 * Answer commands until standard input ends.
 *
 * `publish(text)` sends one message to all subscribers; `waiting()` says how many bytes of them the kernel has not yet
 * taken for the subscriber that is furthest behind.
 */
export function drive({ publish, waiting }) {
  let seq = 0;
  let unseenBytes = 0;

  function publishNext(dueNs, size) {
    seq += 1;
    unseenBytes += size;
    publish(makeMessage(seq, dueNs, size));
  }

  async function settle(always) {
    await nextTick();
    if (!always && unseenBytes < UNSEEN_BYTES_MAX) return;
    while (waiting() > 0) await nextTick();
    unseenBytes = 0;
  }

  const commands = {
    async flood({ seconds, burst, size }) {
      const startedNs = now();
      const first = seq;
      while (now() - startedNs < seconds * 1e9) {
        for (let i = 0; i < burst; i++) publishNext(now(), size);
        await settle(false);
      }
      await settle(true);
      return { published: seq - first, last: seq, seconds: (now() - startedNs) / 1e9 };
    },

    async pace({ lead_in_s: leadInS, seconds, rate, size }) {
      const startedNs = now();
      const first = seq;
      for (let index = 0; index < Math.floor((leadInS + seconds) * rate); index++) {
        const dueNs = startedNs + Math.floor(((index + 1) * 1e9) / rate);
        if (dueNs <= now()) await nextTick();
        while (dueNs > now()) await sleep(Math.ceil((dueNs - now()) / 1e6));
        publishNext(index >= leadInS * rate ? dueNs : 0, size);
      }
      return { published: seq - first, last: seq, seconds: (now() - startedNs) / 1e9, errors: 0 };
    },
  };

  const lines = createInterface({ input: process.stdin });
  lines.on("line", async (line) => {
    const command = JSON.parse(line);
    let answer = { error: `this contender does not know ${command.do}` };
    if (command.do in commands) answer = await commands[command.do](command);
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  });
  lines.on("close", () => process.exit(0));
}
