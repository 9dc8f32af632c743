import { once } from "node:events";
import http2 from "node:http2";
import { type RawConnection, type TestProxy, TestUpstream } from "./test_support.ts";

/** Options of a proxy whose connections are cut soon after its end. */
export const SHORT = { shutdownGraceMs: 200 };
/** The head of a request for the one workload. */
export const APP = { ":path": "/", ":authority": "app" };

/** Runs with a session to the proxy, prior knowledge. */
export async function withSession(
  port: number,
  run: (session: http2.ClientHttp2Session) => Promise<void>,
): Promise<void> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const closed = new Promise((resolve) => session.on("close", resolve));
  try {
    await run(session);
  } finally {
    session.close();
    await closed;
  }
}

/** Head and body of an answer. */
export async function answerOf(
  stream: http2.ClientHttp2Stream,
): Promise<{ headers: http2.IncomingHttpHeaders; body: string }> {
  // A reset may come between the head and the first read, which then tells it.
  stream.on("error", () => {});
  const [headers] = await once(stream, "response");
  let body = "";
  for await (const chunk of stream) body += new TextDecoder("latin1").decode(chunk);
  return { headers, body };
}

/** What curl prints, after its exit code and the version and status it saw. */
export async function curl(port: number, path: string, ...args: string[]): Promise<string> {
  const { code, stdout } = await new Deno.Command("curl", {
    args: [
      ...[
        "-s",
        "--http2-prior-knowledge",
        "-m",
        "20",
        "-H",
        "Host: app",
        "-w",
        "\n%{http_version} %{http_code}",
      ],
      ...[...args, `http://127.0.0.1:${port}${path}`],
    ],
  }).output();
  const text = new TextDecoder("latin1").decode(stdout), at = text.lastIndexOf("\n");
  return `${code} ${text.slice(at + 1)} ${text.slice(0, at)}`;
}

/** An upstream that sends this text as soon as it has a head, then does as told. */
export function answering(
  text: string,
  then = (connection: RawConnection) => connection.rest(),
): TestUpstream {
  return new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(text);
    await then(connection);
  });
}

/** Resolves when no connection to the proxy is open. */
export function eventuallyIdle({ proxy }: TestProxy): Promise<void> {
  return eventually(async () => (await proxy.stats()).openConnections === 0);
}

/** Resolves when it holds. */
export async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!await holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
