import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";
import { type Member, MemberStatus } from "./member.ts";

/** Where somebody is or was; an address that this node was told to join has no name. */
export interface Address {
  name?: string;
  endpoint: Endpoint;
}

/** What the members of {@linkcode isAway} are. */
export interface MemberLookup {
  get(name: string): Member | undefined;
  values(): Iterable<Member>;
}

/** Whether nobody who is here has that name or, where there is none, that address. */
export function isAway({ name, endpoint }: Address, members: MemberLookup): boolean {
  if (name !== undefined) return members.get(name)?.status !== MemberStatus.alive;
  for (const member of members.values()) {
    if (member.status === MemberStatus.alive && member.endpoint.equals(endpoint.addr, endpoint.port)) {
      return false;
    }
  }
  return true;
}

/** Addresses where the cluster once was: of forgotten members, and those this node was told to join. Bounded. */
export class RejoinBook {
  readonly #addresses = new Map<string, Address>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#addresses.size;
  }

  /** Remembers an address as the newest; the oldest goes where there is no room. */
  remember(address: Address): void {
    const key = address.endpoint.toString();
    this.#addresses.delete(key);
    this.#addresses.set(key, address);
    if (this.#addresses.size > this.#limit) {
      const [oldest] = this.#addresses.keys();
      this.#addresses.delete(oldest);
    }
  }

  /** One of the addresses that `isWanted` takes, at random. */
  pick(random: Random, isWanted: (address: Address) => boolean): Address | undefined {
    const wanted = [...this.#addresses.values()].filter(isWanted);
    return wanted.length === 0 ? undefined : wanted[random.int(wanted.length)];
  }
}
