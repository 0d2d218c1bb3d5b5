// The reference server of Durable Streams, in memory, on a free port of this machine; until its input ends.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { DurableStreamTestServer } = await import(pathToFileURL(require.resolve("@durable-streams/server")));
const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1" });
await server.start();
console.log(server.url);
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
