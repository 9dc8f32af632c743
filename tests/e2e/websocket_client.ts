/**
 * Talks WebSocket to the workload of `echo_workload.ts`, at the URL of the first argument under the Host of the second, and
 * prints what came of it as JSON. A program, as it has to run in the network of a node.
 */
import { once } from "node:events";
// @ts-types="@types/ws"
import { WebSocket } from "ws";
import { CLOSE_WORD, PING_WORD, type WebSocketTalk } from "./echo_workload.ts";

const [url, host] = Deno.args;
const dial = async () => {
  const socket = new WebSocket(url, { headers: { Host: host }, perMessageDeflate: false });
  await once(socket, "open");
  return socket;
};
const closed = async (socket: WebSocket) => {
  const [code, reason] = await once(socket, "close");
  return `${code} ${reason}`;
};

const socket = await dial();
const message = async () => {
  const [data, isBinary] = await once(socket, "message");
  return isBinary ? [...data].join(" ") : String(data);
};
const answer = async (send: () => void) => {
  const answered = message();
  send();
  return await answered;
};
const long = "x".repeat(300);
const text = await answer(() => socket.send("hällo"));
const isLongWhole = await answer(() => socket.send(long)) === long;
const binary = await answer(() => socket.send(new Uint8Array([0, 1, 128, 255])));
const fragments = await answer(() => {
  socket.send("one ", { fin: false });
  socket.send("two", { fin: true });
});
const ponged = once(socket, "pong");
socket.ping("are you there?");
const pong = String((await ponged)[0]);
const pinged = once(socket, "ping");
const heardPong = await answer(() => socket.send(PING_WORD));
const ping = String((await pinged)[0]);
socket.close(4001, "moved on");
const ownClose = await closed(socket);

const left = await dial();
left.send(CLOSE_WORD);
const theirClose = await closed(left);
const talk: WebSocketTalk = {
  text,
  isLongWhole,
  binary,
  fragments,
  pong,
  ping,
  heardPong,
  ownClose,
  theirClose,
};
console.log(JSON.stringify(talk));
