// The hosts' web server: HTTP/1 and HTTP/2 over TLS, HTTP/1 without, websockets that come back, files of a git repository.
// Arguments: port, TLS port, certificate, key, repository.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import path from "node:path";

const [port, tlsPort, cert, key, repository] = process.argv.slice(2);

function answer(request, response) {
  const host = request.headers[":authority"] ?? request.headers.host;
  if (request.url.startsWith("/git/")) {
    const file = path.join(repository, path.normalize(new URL(request.url, "http://h").pathname.slice(4)));
    try {
      const bytes = readFileSync(file);
      response.writeHead(200, { "content-type": "application/octet-stream" });
      return response.end(bytes);
    } catch {
      response.writeHead(404);
      return response.end();
    }
  }
  let length = 0;
  request.on("data", (bytes) => (length += bytes.length));
  request.on("end", () => {
    response.writeHead(200, { "content-type": "text/plain" });
    response.end(`${request.httpVersion} ${host} ${request.url} ${length}\n`);
  });
}

// RFC 6455, as much of it as a short text message needs.
function upgrade(request, socket) {
  const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(request.headers["sec-websocket-key"] + guid).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.on("error", () => socket.destroy());
  // curl never says anything, and waits.
  socket.setTimeout(1000, () => socket.destroy());
  socket.on("data", (frame) => {
    if ((frame[0] & 15) === 8) return socket.end(Buffer.from([0x88, 0]));
    const length = frame[1] & 127;
    const mask = frame.subarray(2, 6);
    const text = Buffer.from(frame.subarray(6, 6 + length).map((byte, i) => byte ^ mask[i % 4]));
    socket.write(Buffer.concat([Buffer.from([0x81, length]), text]));
  });
}

const tls = http2.createSecureServer({ allowHTTP1: true, cert: readFileSync(cert), key: readFileSync(key) }, answer);
const plain = http.createServer(answer);
for (const server of [tls, plain]) server.on("upgrade", upgrade);
plain.listen(Number(port), "127.0.0.1");
tls.listen(Number(tlsPort), "127.0.0.1");
