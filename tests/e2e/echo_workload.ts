import { busyboxImage, type TestImage } from "../support/images.ts";
import { DEADLINE_MS, type LiveAgent, until } from "./live_agent.ts";

/** What a request asks for is in its path; the rest are answered with their head, as the workload saw it. */
const SERVER = `#!/bin/sh
head=""
while read -r line; do
  line=$(printf %s "$line" | tr -d '\\r')
  [ -z "$line" ] && break
  head="$head$line
"
done
key=$(printf %s "$head" | sed -n 's/^[Ss]ec-[Ww]eb[Ss]ocket-[Kk]ey: *//p')
case "$head" in
*[Uu]pgrade:*[Ww]eb[Ss]ocket*)
  exec /bin/echo-websocket "$key" ;;
*[Uu]pgrade:*)
  printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n'
  exec cat ;;
*/down*)
  printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nfirst\\n'
  while [ ! -e /tmp/go ]; do usleep 20000; done
  printf 'last\\n' ;;
*/go*)
  touch /tmp/go
  printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\ngone\\n' ;;
*/up*)
  while read -r line; do
    case "$line" in first*) touch /tmp/got ;; last*) break ;; esac
  done
  printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nwhole\\n' ;;
*)
  printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%s' "$head" ;;
esac
`;

/** Text that has the workload send a ping, whose pong it answers with a message of the same payload. */
export const PING_WORD = "ping!";
/** Text that has the workload close the connection, with 4002 and a reason. */
export const CLOSE_WORD = "leave";

const decimals = (text: string) => [...new TextEncoder().encode(text)].join(" ");

/** WebSocket (RFC 6455): frames are sent back as they came, and its own pings and closes are asked for by words. */
const WEBSOCKET_SERVER = `#!/bin/sh
accept=$(printf %s258EAFA5-E914-47DA-95CA-C5AB0DC85B11 "$1" | sha1sum | cut -d ' ' -f 1 | xxd -r -p | base64)
printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n'
printf 'Sec-WebSocket-Accept: %s\\r\\n\\r\\n' "$accept"
bytes() { dd bs=1 count="$1" 2>/dev/null | od -An -v -tu1; }
frame() {
  first=$1
  shift
  if [ $# -lt 126 ]; then length=$#; else length="126 $(($# / 256)) $(($# % 256))"; fi
  printf "$(printf '\\%03o' "$first" $length "$@")"
}
while set -- $(bytes 2) && [ $# = 2 ]; do
  head=$1 length=$(($2 & 127))
  if [ $length = 126 ]; then
    set -- $(bytes 2)
    length=$(($1 * 256 + $2))
  fi
  set -- $(bytes 4)
  a=$1 b=$2 c=$3 d=$4 payload=""
  for byte in $(bytes $length); do
    payload="$payload $((byte ^ a))"
    next=$a a=$b b=$c c=$d d=$next
  done
  case $((head & 15)):$payload in
  8:*) frame 136 $payload; exit ;;
  9:*) frame 138 $payload ;;
  10:*) frame 129 $payload ;;
  "1: ${decimals(PING_WORD)}") frame 137 ${decimals("and you?")} ;;
  "1: ${decimals(CLOSE_WORD)}") frame 136 ${4002 >> 8} ${4002 & 255} ${decimals("gone")} ;;
  *) frame "$head" $payload ;;
  esac
done
`;

/** What the program `websocket_client.ts` prints. */
export interface WebSocketTalk {
  text: string;
  /** Of a message whose length takes a longer head. */
  isLongWhole: boolean;
  binary: string;
  fragments: string;
  pong: string;
  ping: string;
  heardPong: string;
  /** Code and reason of a close of each end's, as the client saw it. */
  ownClose: string;
  theirClose: string;
}

/** Command of a workload that shows what a proxy did to a request. */
export const ECHO_COMMAND = ["nc", "-ll", "-p", "8080", "-e", "/bin/echo-http"];

/** Image for {@linkcode ECHO_COMMAND}. */
export function echoImage(): TestImage {
  return busyboxImage({
    layers: [{
      "bin/echo-http": { content: SERVER, mode: 0o755 },
      "bin/echo-websocket": { content: WEBSOCKET_SERVER, mode: 0o755 },
    }],
  });
}

/** Upgrades a connection through an agent's proxy, and gives the status line and what came back of `sent` afterwards. */
export async function upgraded(agent: LiveAgent, id: string, sent: string): Promise<string> {
  const child = agent.host.spawn("busybox", ["nc", "127.0.0.1", "8080"], {
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  });
  const writer = child.stdin.getWriter();
  const write = (text: string) => writer.write(new TextEncoder().encode(text));
  await write(`GET / HTTP/1.1\r\nHost: ${id}.example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n`);
  let received = "";
  let isSent = false;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    received += text;
    if (!isSent && received.includes("\r\n\r\n")) {
      isSent = true;
      await write(sent);
    }
    if (received.endsWith(sent) || isSent && !received.startsWith("HTTP/1.1 101")) break;
  }
  child.kill("SIGKILL");
  await child.status;
  await writer.close().catch(() => {}); // it is gone
  return `${received.split("\r\n", 1)[0]}\n${received.split("\r\n\r\n")[1] ?? ""}`;
}

/** Talks WebSocket to the workload through an agent's proxy. */
export async function talkWebSocket(agent: LiveAgent, id: string): Promise<WebSocketTalk> {
  const [config, program] = ["../../deno.json", "./websocket_client.ts"].map((path) =>
    new URL(path, import.meta.url).pathname
  );
  const child = agent.host.spawn(
    Deno.execPath(),
    ["run", "-A", "--no-check", "--config", config, program, "ws://127.0.0.1:8080/", `${id}.example.com`],
    { stdin: "null", stdout: "piped", stderr: "piped" },
  );
  const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
  const { success, stdout, stderr } = await child.output();
  clearTimeout(timer);
  if (!success) throw new Error(`the talk failed: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** A body of two parts through an agent's proxy, the second written when `release` is over; what came in the end. */
export async function streamedDown(
  agent: LiveAgent,
  id: string,
  release: () => Promise<unknown>,
): Promise<string> {
  const child = curl(agent, id, "down", []);
  let body = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    body += text;
    if (body === "first\n") await release();
  }
  await child.status;
  return body;
}

/** A request's body of two parts, the second sent when the workload has got the first; what was answered. */
export async function streamedUp(agent: LiveAgent, id: string): Promise<string> {
  const child = curl(agent, id, "up", ["-T", "-"]);
  const writer = child.stdin.getWriter();
  const write = (text: string) => writer.write(new TextEncoder().encode(text));
  await write("first\n");
  await until("the workload has got the first part", async () => {
    return (await agent.cli(["exec", id, "test", "-e", "/tmp/got"])).code === 0;
  });
  await write("last\n");
  await writer.close();
  return new TextDecoder().decode((await child.output()).stdout);
}

function curl(agent: LiveAgent, id: string, path: string, args: readonly string[]): Deno.ChildProcess {
  return agent.host.spawn(
    "curl",
    ["-sN", "-m", "60", ...args, "-H", `Host: ${id}.example.com`, `http://127.0.0.1:8080/${path}`],
    { stdin: args.length > 0 ? "piped" : "null", stdout: "piped", stderr: "null" },
  );
}
