// Node's clients. `fetch URL`; `socket URL`: a websocket that says something and waits for it; `ticking URL`: fetch, while
// the event loop has to keep ticking; `many URL COUNT`: so many fetches at once, with NUMBER replaced.
const [how, url, count] = process.argv.slice(2);

async function get() {
  const response = await fetch(url, { headers: { connection: "close" } });
  return `${response.status} ${await response.text()}`;
}

function socket() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.onerror = () => reject(new Error("websocket"));
    socket.onopen = () => socket.send("over-a-websocket");
    socket.onmessage = (message) => {
      socket.close();
      resolve(`${message.data}\n`);
    };
  });
}

async function ticking() {
  let ticks = 0;
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    ticks += 1;
    if (ticks % 20 === 0) console.log(`ticks ${ticks}`);
  }, 50);
  const answer = await get();
  clearInterval(timer);
  return `ticks ${ticks}\nlongest ${Math.round(longest)}\n${answer}`;
}

async function many() {
  const all = Array.from({ length: Number(count) }, (_, i) =>
    fetch(url.replace("NUMBER", i)).then(
      async (response) => `${i}: ${response.status} ${(await response.text()).trim()}`,
      (error) => `${i}: error ${error.cause?.code ?? error}`,
    ),
  );
  return `${(await Promise.all(all)).join("\n")}\n`;
}

const ways = { fetch: get, socket, ticking, many };
try {
  process.stdout.write(await ways[how]());
} catch (error) {
  console.log(`error: ${error.cause?.code ?? error}`);
  process.exitCode = 1;
}
