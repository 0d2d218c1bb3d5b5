// What people do with the SDK, against a running server: node smoke.mjs URL PACKAGE CODEC. Says "ok" at the end.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { once } from "node:events";

const [url, name, codec] = process.argv.slice(2);
const require = createRequire(process.cwd() + "/");
const WebSocket = require("ws");
const isProtobuf = codec === "protobuf";
const { Centrifuge, UnauthorizedError } = require(isProtobuf ? `${name}/build/protobuf` : name);

const pack = (value) => (isProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
const unpack = (data) => (isProtobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
const clients = [];

function client(options = {}) {
  const made = new Centrifuge(url, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 100, ...options });
  clients.push(made);
  return made;
}

/** The next event of that name; what it carries. */
function next(emitter, event, filter = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} came`)), 8000);
    const listener = (context) => {
      if (!filter(context)) return;
      clearTimeout(timer);
      emitter.removeListener(event, listener);
      resolve(context);
    };
    emitter.on(event, listener);
  });
}

async function collects() {
  const c = client();
  c.connect();
  await c.ready(5000);
  const topic = "smoke:" + crypto.randomUUID();
  const sub = c.newSubscription(topic, { delta: "fossil" });
  const got = [];
  sub.on("publication", (context) => got.push(unpack(context.data)));
  const joined = next(sub, "join");
  sub.subscribe();
  await sub.ready(5000);
  await joined;
  for (let n = 0; n < 5; n++) await sub.publish(pack({ pad: "x".repeat(300), n }));
  while (got.length < 5) await next(sub, "publication");
  assert.deepEqual(got.map((one) => one.n), [0, 1, 2, 3, 4]);
  const history = await sub.history({ limit: 10 });
  assert.deepEqual(history.publications.map((one) => unpack(one.data).n), [0, 1, 2, 3, 4]);
  // an SDK before 5.6 gives Protobuf's 64 bits as an object
  assert.equal(Number(history.offset), 5);
  const reverse = await sub.history({ limit: 2, reverse: true });
  assert.deepEqual(reverse.publications.map((one) => unpack(one.data).n), [4, 3]);
  assert.equal(Object.keys((await sub.presence()).clients).length, 1);
  assert.deepEqual(await sub.presenceStats(), { numClients: 1, numUsers: 1 });

  // away for a moment, and back with nothing missing
  sub.unsubscribe();
  const other = client();
  other.connect();
  await other.ready(5000);
  await other.publish(topic, pack({ n: 5 }));
  await other.publish(topic, pack({ n: 6 }));
  const subscribed = next(sub, "subscribed");
  sub.subscribe();
  const context = await subscribed;
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, true);
  while (got.length < 7) await next(sub, "publication");
  assert.deepEqual(got.map((one) => one.n), [0, 1, 2, 3, 4, 5, 6]);

  // calls
  assert.deepEqual(unpack((await c.rpc("echo", pack({ value: 7 }))).data), { value: 7 });
  await assert.rejects(c.rpc("sold.out", pack({})), { code: 409, message: "sold out" });
  await assert.rejects(c.rpc("nope", pack({})), { code: 104 });
  await assert.rejects(c.rpc("echo", pack({ value: "seven" })), { code: 107 });
  return { c, sub, got, topic, other };
}

async function comesBackAfterACut({ c, sub, got, topic, other }) {
  const connecting = next(c, "connecting");
  // the line breaks: nobody says goodbye
  c._transport._transport.terminate();
  await connecting;
  await other.publish(topic, pack({ n: 7 }));
  while (got.length < 8) await next(sub, "publication");
  await other.publish(topic, pack({ n: 8 }));
  while (got.length < 9) await next(sub, "publication");
  assert.deepEqual(got.map((one) => one.n), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

async function isRefused() {
  const c = client({ token: "forged" });
  const disconnected = next(c, "disconnected");
  c.connect();
  assert.equal((await disconnected).code, 3500);
  const plain = client();
  plain.connect();
  await plain.ready(5000);
  const sub = plain.newSubscription("a//b");
  const unsubscribed = next(sub, "unsubscribed");
  sub.subscribe();
  assert.equal((await unsubscribed).code, 107);
}

async function isPinged() {
  // the SDK itself drops a server that does not ping; here only: the connect result promises it
  const c = client();
  const connected = next(c, "connected");
  c.connect();
  await connected;
  assert.equal(c._transport !== null, true);
  assert.equal(c._serverPing, 25000);
}

try {
  await comesBackAfterACut(await collects());
  await isRefused();
  await isPinged();
  console.log("ok");
} finally {
  for (const one of clients) one.disconnect();
}
