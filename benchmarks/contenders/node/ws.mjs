// The `ws` library: /topic is subscribed to, /echo echoes, /upload counts bytes and answers a message of one byte.
import { createServer as createPlain } from "node:http";
import { createServer as createSecure } from "node:https";
import { drive, options, packages, readTls } from "./harness.mjs";

const { WebSocketServer } = packages("ws");
const { port, tls } = options();
const subscribers = new Set();

function echo(socket) {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
}

function upload(socket) {
  let total = 0;
  socket.on("message", (data) => {
    total += data.length;
    if (data.length !== 1) return;
    socket.send(String(total));
    total = 0;
  });
}

function subscribe(socket) {
  subscribers.add(socket);
  socket.on("close", () => subscribers.delete(socket));
}

const roles = { "/topic": subscribe, "/echo": echo, "/upload": upload };
const http = tls ? createSecure(readTls(tls)) : createPlain();
const server = new WebSocketServer({ server: http, perMessageDeflate: false, clientTracking: false });
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  roles[request.url]?.(socket);
});
http.listen({ port, host: "127.0.0.1", backlog: 4096 });

drive({
  publish(text) {
    const data = Buffer.from(text);
    for (const socket of subscribers) socket.send(data, { binary: false });
  },
  waiting() {
    let most = 0;
    for (const socket of subscribers) most = Math.max(most, socket.bufferedAmount);
    return most;
  },
});
