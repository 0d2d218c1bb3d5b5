// uWebSockets.js, in the npm package that --package names (both carry its binary): /topic is subscribed to and gets
// what its publish() sends, which it joins per tick itself; /echo echoes; /upload counts and answers one byte.
import { drive, options, packages } from "./harness.mjs";

const given = options();
const uws = packages(given.package);
const subscribers = new Set();
// compression off as everywhere; large enough that nothing is dropped, which its default (64 KiB) would do
const limits = { compression: uws.DISABLED, maxPayloadLength: 16 << 20, maxBackpressure: 16 << 20 };

const app = given.tls
  ? uws.SSLApp({ key_file_name: given.tls.key, cert_file_name: given.tls.cert })
  : uws.App();

app.ws("/topic", {
  ...limits,
  open(socket) {
    socket.subscribe("bench");
    subscribers.add(socket);
  },
  close(socket) {
    subscribers.delete(socket);
  },
});
app.ws("/echo", {
  ...limits,
  message(socket, data, isBinary) {
    socket.send(data, isBinary);
  },
});
app.ws("/upload", {
  ...limits,
  open(socket) {
    socket.total = 0;
  },
  message(socket, data) {
    socket.total += data.byteLength;
    if (data.byteLength !== 1) return;
    socket.send(String(socket.total));
    socket.total = 0;
  },
});
app.listen("127.0.0.1", given.port, (token) => {
  if (!token) {
    console.error(`port ${given.port} is taken`);
    process.exit(1);
  }
});

drive({
  publish(text) {
    app.publish("bench", text);
  },
  waiting() {
    let most = 0;
    for (const socket of subscribers) most = Math.max(most, socket.getBufferedAmount());
    return most;
  },
});
