import { Argument, type Command } from "@commander-js/extra-typings";
import type { Io } from "./io.ts";
import { collected, jsonOption, parsed } from "./options.ts";
import { parseInteger, parsePair } from "./parse/values.ts";
import type { Finish } from "./program.ts";

/** Adds what every client command takes. */
type AsClient = <T extends Command>(command: T) => Command;

/** Longest wait for the answers to a query, ms. */
const MAX_QUERY_MS = 600_000;

/** The verbs that Serf's users know, and those that look after nodes. */
export function addClusterCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  addMemberCommands(program, client, io, finish);
  addMessageCommands(program, client, io, finish);
  addKeyCommands(program, client, io, finish);
  addNodeCommands(program, client, io, finish);
}

function addMemberCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  client(program.command("members")).description("list the cluster's members")
    .addOption(jsonOption())
    .option("--status <status>", "only those: alive, leaving, left or failed")
    .option("--detailed", "tags too")
    .action(async (options) => {
      const { members } = await import("./commands/members.ts");
      finish(await members(options as never, io));
    });
  client(program.command("join")).description("make the agent join other members")
    .argument("<addresses...>", "host[:port] of members")
    .addOption(jsonOption())
    .action(async (addresses, options) => {
      const { join } = await import("./commands/membership.ts");
      finish(await join(addresses, options as never, io));
    });
  client(program.command("leave")).description("make the agent leave the cluster and end; containers run on")
    .addOption(jsonOption())
    .action(async (options) => {
      const { leave } = await import("./commands/membership.ts");
      finish(await leave(options as never, io));
    });
  client(program.command("force-leave")).description("declare a failed member gone")
    .argument("<node>", "its name")
    .option("--prune", "forget it at once")
    .addOption(jsonOption())
    .action(async (node, options) => {
      const { forceLeave } = await import("./commands/membership.ts");
      finish(await forceLeave(node, options as never, io));
    });
  client(program.command("info")).description("print what the agent knows of itself and its cluster")
    .addOption(jsonOption())
    .action(async (options) => {
      const { info } = await import("./commands/info.ts");
      finish(await info(options as never, io));
    });
  client(program.command("rtt")).description("estimate the round-trip time between two members")
    .argument("<node>", "name")
    .argument("[other]", "name; this agent's node without it")
    .addOption(jsonOption())
    .action(async (node, other, options) => {
      const { rtt } = await import("./commands/network.ts");
      finish(await rtt({ from: node, to: other }, options as never, io));
    });
  client(program.command("reachability")).description("ask every member for a sign of life")
    .addOption(jsonOption())
    .action(async (options) => {
      const { reachability } = await import("./commands/network.ts");
      finish(await reachability(options as never, io));
    });
}

function addMessageCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  client(program.command("event")).description("send a user event to every member")
    .argument("<name>", "of the event")
    .argument("[payload]", "text; - reads standard input")
    .option("--no-coalesce", "members must not merge it with others of its name")
    .addOption(jsonOption())
    .action(async (name, payload, options) => {
      const { event } = await import("./commands/messages.ts");
      finish(await event({ name, payload }, options as never, io));
    });
  client(program.command("query")).description("ask the members a question and print their answers")
    .argument("<name>", "of the query")
    .argument("[payload]", "text; - reads standard input")
    .addOption(collected("--node <name>", "only this member", (text) => text))
    .addOption(collected("--tag <K=regexp>", "only members with such a tag", parsePair))
    .option("--no-ack", "do not ask for acknowledgements")
    .addOption(
      parsed(
        "--relay-factor <count>",
        "other ways by which answers come too",
        (text) => parseInteger(text, 0, 255),
      ),
    )
    .addOption(parsed("--timeout <ms>", "wait for answers", (text) => parseInteger(text, 1, MAX_QUERY_MS)))
    .addOption(jsonOption())
    .action(async (name, payload, options) => {
      const { query } = await import("./commands/messages.ts");
      finish(await query({ name, payload }, options as never, io));
    });
  client(program.command("events")).description("follow what happens in the cluster")
    .addOption(jsonOption())
    .action(async (options) => {
      const { events } = await import("./commands/events.ts");
      finish(await events(options as never, io));
    });
}

function addKeyCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  program.command("keygen").description("print a new gossip key")
    .addOption(jsonOption())
    .action(async (options) => {
      const { keygen } = await import("./commands/keys.ts");
      finish(await keygen({ json: options.json === true }, io));
    });
  client(program.command("keys")).description(
    "show, list, install, use or remove gossip keys, or rotate them",
  )
    .addArgument(
      new Argument("<operation>", "what to do").choices(
        ["show", "list", "install", "use", "remove", "rotate"] as const,
      ),
    )
    .argument("[key]", "base64; for install, use and remove; rotate makes one without it")
    .addOption(jsonOption())
    .action(async (operation, key, options) => {
      const { keys } = await import("./commands/keys.ts");
      finish(await keys({ operation, key }, options as never, io));
    });
}

function addNodeCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  for (const verb of ["cordon", "uncordon"] as const) {
    client(program.command(verb))
      .description(verb === "cordon" ? "let a node take no new workloads" : "let it take them again")
      .argument("<node>", "name or id")
      .addOption(jsonOption())
      .action(async (node, options) => {
        const { cordon } = await import("./commands/nodes.ts");
        finish(await cordon({ node, cordoned: verb === "cordon" }, options as never, io));
      });
  }
  client(program.command("drain")).description("cordon a node and move its workloads elsewhere")
    .argument("<node>", "name or id")
    .addOption(jsonOption())
    .action(async (node, options) => {
      const { drain } = await import("./commands/nodes.ts");
      finish(await drain(node, options as never, io));
    });
  client(program.command("move")).description("move a workload to another node; its id and URL stay")
    .argument("<id>", "id or name")
    .option("--to <node>", "name or id of the node; the best other one without it")
    .addOption(jsonOption())
    .action(async (id, options) => {
      const { move } = await import("./commands/nodes.ts");
      finish(await move(id, options as never, io));
    });
}
