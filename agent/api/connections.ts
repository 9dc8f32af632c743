import type net from "node:net";
import { endpointsOf } from "../endpoints.ts";
import { Openings } from "../proxy/openings.ts";

/** What {@linkcode Connections} is given. */
export interface ConnectionsOptions {
  /** How many may be open. */
  max: number;
  /** Told of each that is closed because there are so many. */
  onRefused?: () => void;
}

/**
 * The connections of a port of the API. Until a call on it was accepted, nobody knows whose a connection is; when there are as
 * many as may be, one of these gives way to the next that comes, by the rule of {@linkcode Openings}. Where a call was accepted
 * on all of them, it is the next that is closed: whoever may call is never pushed out.
 */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #openings: Openings;
  /** By {@linkcode endpointsOf}; `opened` says of one that it is no opening any more. */
  readonly #open = new Map<string, { socket: net.Socket; opened: () => void }>();

  constructor(options: ConnectionsOptions) {
    this.#options = options;
    this.#openings = new Openings(options.max);
  }

  /** Takes in a connection as it comes from its server, below TLS; or closes it. */
  add(socket: net.Socket): void {
    const { max, onRefused } = this.#options;
    const refuse = () => {
      onRefused?.();
      socket.destroy();
    };
    if (this.#open.size >= max && !this.#openings.giveWay()) return refuse();
    const endpoints = endpointsOf(socket);
    // One that had the same is over, though its end has not been seen yet.
    this.#open.get(endpoints)?.socket.destroy();
    const gone = () => {
      connection.opened();
      if (this.#open.get(endpoints) === connection) this.#open.delete(endpoints);
    };
    const opened = this.#openings.add(socket.remoteAddress ?? "", () => {
      // Its place is free at once, before it has closed.
      gone();
      refuse();
    });
    const connection = { socket, opened };
    this.#open.set(endpoints, connection);
    socket.once("close", gone);
  }

  /** A call was accepted that came by that socket: above TLS and of an HTTP/2 session, too. */
  accepted(socket: net.Socket): void {
    this.#open.get(endpointsOf(socket))?.opened();
  }

  /** Closes those that are open, or those of them. */
  close(which: (socket: net.Socket) => boolean = () => true): void {
    for (const { socket } of this.#open.values()) if (which(socket)) socket.destroy();
  }
}
