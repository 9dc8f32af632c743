import net from "node:net";

/** What comes back from the local port, for this request, until it closes. */
export function exchange(port: number, request: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => socket.write(request));
    let text = "";
    socket.on("data", (chunk) => text += chunk);
    socket.on("error", () => {}); // what came is the answer
    socket.on("close", () => resolve(text));
  });
}
