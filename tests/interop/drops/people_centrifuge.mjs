// People with the Centrifuge SDK for JavaScript, in Protobuf; what is said to the scenario is told in people.py.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { once } from "node:events";

const require = createRequire(process.cwd() + "/");
const { Centrifuge } = require("centrifuge/build/protobuf");
const websocket = require("ws");

const lines = createInterface({ input: process.stdin });
const [line] = await once(lines, "line");
const { urls, room } = JSON.parse(line);

function takePart(url) {
  const notes = { numbers: [], returns: 0, gaps: 0 };
  const client = new Centrifuge(url, { websocket, minReconnectDelay: 100, maxReconnectDelay: 500 });
  const sub = client.newSubscription(room);
  notes.isThere = new Promise((resolve) => {
    let isThere = false;
    sub.on("subscribed", (context) => {
      notes.returns += isThere;
      notes.gaps += context.wasRecovering && !context.recovered;
      isThere = true;
      resolve();
    });
  });
  let isOver = false;
  notes.isOver = new Promise((resolve) => {
    sub.on("publication", (context) => {
      const { number } = JSON.parse(new TextDecoder().decode(context.data));
      if (number === null) {
        isOver = true;
        resolve();
      } else if (!isOver) notes.numbers.push(number);
    });
  });
  client.connect();
  sub.subscribe();
  return notes;
}

const everybody = urls.map(takePart);
await Promise.all(everybody.map((notes) => notes.isThere));
console.log("ready");
await Promise.all(everybody.map((notes) => notes.isOver));
const told = JSON.stringify(everybody.map(({ numbers, returns, gaps }) => [numbers, returns, gaps])) + "\n";
// a pipe takes it in pieces
process.stdout.write(told, () => process.exit(0));
