import { busyboxImage, type TestImage } from "../support/images.ts";
import { type LiveAgent, until } from "./live_agent.ts";

/** What a request asks for is in its path; the rest are answered with their head, as the workload saw it. */
const SERVER = `#!/bin/sh
head=""
while read -r line; do
  line=$(printf %s "$line" | tr -d '\\r')
  [ -z "$line" ] && break
  head="$head$line
"
done
case "$head" in
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

/** Command of a workload that shows what a proxy did to a request. */
export const ECHO_COMMAND = ["nc", "-ll", "-p", "8080", "-e", "/bin/echo-http"];

/** Image for {@linkcode ECHO_COMMAND}. */
export function echoImage(): TestImage {
  return busyboxImage({ layers: [{ "bin/echo-http": { content: SERVER, mode: 0o755 } }] });
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
