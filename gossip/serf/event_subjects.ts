import type { Subject } from "../memberlist/broadcast_queue.ts";

/** Subjects remembered; the one that was heard of least recently gives way. */
export const MAX_SUBJECTS = 16_384;

/** Tells what a user event is about; undefined where it is about nothing that a later one replaces. */
export type EventSubject = (event: { name: string; payload: Uint8Array }) => string | undefined;

/** What the user events that wait to be sent on are about, so that a newer one takes the place of an older. */
export class EventSubjects {
  readonly #of: EventSubject | undefined;
  readonly #known = new Map<string, { ltime: number; subject: Subject }>();

  constructor(of: EventSubject | undefined) {
    this.#of = of;
  }

  get size(): number {
    return this.#known.size;
  }

  /** The subject to queue it under, if it has one; false where a newer one is on its way already. */
  take(event: { ltime: number; name: string; payload: Uint8Array }): Subject | undefined | false {
    const name = this.#of?.(event);
    if (name === undefined) return undefined;
    const known = this.#known.get(name);
    if (known !== undefined && known.ltime > event.ltime) return false;
    const subject = known?.subject ?? { queued: undefined };
    this.#known.delete(name);
    this.#known.set(name, { ltime: event.ltime, subject });
    if (this.#known.size > MAX_SUBJECTS) this.#known.delete(this.#known.keys().next().value!);
    return subject;
  }
}
