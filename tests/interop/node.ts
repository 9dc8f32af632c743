import { createSerf } from "../../gossip/mod.ts";

/**
 * Runs one of our nodes as a process of its own: `node.ts NAME HOST PORT [JOIN]`. Each line on stdin is answered by
 * the members as JSON on a line of stdout; the end of stdin ends it.
 */
if (import.meta.main) {
  const [name, host, port, join] = Deno.args;
  await using serf = await createSerf({ name, bind: { host, port: Number(port) }, profile: "lan" });
  if (join) await serf.join([join]);
  console.log("ready");
  for await (const _ of Deno.stdin.readable) {
    const members = serf.members().map((member) => [member.name, member.status]);
    console.log(JSON.stringify(Object.fromEntries(members)));
  }
}
