import assert from "node:assert/strict";
import type { LiveAgent } from "./live_agent.ts";

/** A command that must fail, and how. */
export interface Refusal {
  args: readonly string[];
  /** 1: it could not be done; 2: it could not be understood. */
  code: 1 | 2;
  /** The one line on standard error. */
  err: RegExp;
  /** Looks at what it printed before it failed; nothing may be printed without it. */
  out?: (text: string) => void;
}

/** Commands at a time: each is a process. */
const AT_ONCE = 4;

/** Runs the commands on an agent's node: each ends with its code and one line, and leaves `facts` as they were. */
export async function refuses(
  agent: LiveAgent,
  refusals: readonly Refusal[],
  facts: () => Promise<unknown>,
): Promise<void> {
  const before = await facts();
  for (let i = 0; i < refusals.length; i += AT_ONCE) {
    await Promise.all(
      refusals.slice(i, i + AT_ONCE).map(async ({ args, code, err, out }) => {
        const outcome = await agent.cli(args);
        const what = `hypercore ${args.map((word) => word.slice(0, 60)).join(" ")}`;
        assert.equal(outcome.code, code, `${what}: ${outcome.err}`);
        assert.match(outcome.err, /^hypercore: [^\n]+\n$/, what);
        assert.match(outcome.err, err, `${what}: ${outcome.err}`);
        if (out === undefined) assert.equal(outcome.out, "", what);
        else out(outcome.out);
      }),
    );
  }
  assert.deepEqual(await facts(), before);
}
