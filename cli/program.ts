import { Argument, Command, type CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { addAgentOptions } from "./agent_options.ts";
import { addClusterCommands } from "./cluster_commands.ts";
import type { Io } from "./io.ts";
import {
  accumulated,
  apiCaOption,
  apiOption,
  collected,
  configOption,
  dataDirOption,
  grpcBindAddrOption,
  jsonOption,
  parsed,
  tokenOption,
} from "./options.ts";
import {
  parseEnvEntry,
  parseImageRef,
  parseInteger,
  parseMemoryMib,
  parseMilliCpus,
  parseName,
  parsePair,
  parsePorts,
  parseWorkloadId,
} from "./parse/values.ts";
import { applySettings } from "./settings.ts";
import { exitCode } from "./exit.ts";
import { addTrustCommands } from "./trust_commands.ts";

/** Longest wait for a workload to stop by itself, ms: a day. */
const MAX_GRACE_MS = 86_400_000;
/** Most log lines that can be asked for. */
const MAX_TAIL = 1_000_000;

/** Ends the program's run with a code; each command's action calls it once. */
export type Finish = (code: number) => void;

/**
 * The whole command tree. Each command's code is imported only when it runs. `finish` gets the exit code.
 */
export function buildProgram(io: Io, finish: Finish) {
  const program = new Command("hypercore")
    .description("Leaderless container orchestrator: every node runs the same agent.")
    .enablePositionalOptions()
    .option("-V, --version", "print the version", false)
    .addHelpText(
      "after",
      "\nEvery flag is also HYPERCORE_<FLAG> and a key of the TOML file given by --config.",
    );
  program.action(async (options) => {
    if (!options.version) program.help({ error: true });
    const { version } = await import("./commands/version.ts");
    finish(await version({ json: false }, io));
  });

  const agent = addAgentOptions(program.command("agent")).alias("cluster")
    .description("run this node's agent")
    .argument("[address]", "address of a member to join")
    .enablePositionalOptions()
    .passThroughOptions(false)
    .action(async (address, options) => {
      const { agent } = await import("./commands/agent.ts");
      finish(await agent(address, options, io));
    });

  for (const parent of [program, agent] as unknown as Command[]) {
    addWorkloadCommands(parent, io, finish);
  }
  addSessionCommands(program as unknown as Command, io, finish);
  addImageCommands(program as unknown as Command, io, finish);
  addPolicyCommands(program as unknown as Command, io, finish);
  addTrustCommands(program as unknown as Command, client, io, finish);
  addClusterCommands(program as unknown as Command, client as never, io, finish);

  program.command("version").description("print version, build and runtime")
    .addOption(jsonOption())
    .action(async (options) => {
      const { version } = await import("./commands/version.ts");
      finish(await version({ json: options.json === true }, io));
    });
  program.command("completion").description("print a completion script for a shell")
    .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"] as const))
    .action(async (shell) => {
      const { completionScript } = await import("./completion.ts");
      await io.out(completionScript(program as unknown as CommandUnknownOpts, shell));
      finish(exitCode.ok);
    });

  program.hook("preAction", (_root, command) => applySettings(command as CommandUnknownOpts, io));
  return program;
}

/** spawn, list, stop and logs: at the top and below `cluster`, as the original has them. */
function addWorkloadCommands(parent: Command, io: Io, finish: Finish): void {
  client(parent.command("spawn")).description("start a workload")
    .addOption(
      parsed("--image-ref <ref>", "image, e.g. nginx:1 or registry.example/web@sha256:…", parseImageRef),
    )
    .addOption(parsed("--image <ref>", "the same as --image-ref", parseImageRef))
    .addOption(parsed("--cpu <count>", "vCPUs, e.g. 2 or 0.5 (default: 1)", parseMilliCpus))
    .addOption(
      parsed("--mem <MiB>", "memory in MiB or with unit, e.g. 512 or 2g (default: 512)", parseMemoryMib),
    )
    .addOption(
      accumulated(
        "--ports <host:container,…>",
        "host ports to serve the workload's URL on",
        (text, previous: Map<number, number> | undefined) => parsePorts(text, previous),
      ),
    )
    .addOption(collected("--env <K=V>", "environment variable", parseEnvEntry))
    .addOption(
      new Option(
        "--runtime <name>",
        "runc, runsc, kata, firecracker, cloud-hypervisor or a containerd runtime",
      ),
    )
    .addOption(collected("--runtime-option <K=V>", "option of the runtime", parsePair))
    .addOption(
      new Option("--provider <name>", "VM provider of the original: runc, firecracker, cloudhypervisor"),
    )
    .addOption(parsed("--name <name>", "name, usable wherever an id is", parseName))
    .addOption(collected("--label <K=V>", "label that policies select by", parsePair))
    .addOption(
      new Option(
        "--policy <file|name>",
        "policy that tightens the cluster's: a file, or a name on the agent",
      ),
    )
    .addOption(new Option("--hac <file>", "read a hac.toml; flags override it"))
    .addOption(new Option("--node <name>", "only this node may take it, by name or id"))
    .addOption(
      collected(
        "--constraint <rule>",
        "key=value, key!=value, key=~regexp or key, over a node's tags",
        (text) => text,
      ),
    )
    .addOption(
      new Option(
        "--spread <tag>",
        'prefer nodes whose value of this tag (or "node") has fewest of its image',
      ),
    )
    .addOption(new Option("--request-id <text>", "the same again is answered, not done twice"))
    .addOption(
      parsed(
        "--pids-limit <count>",
        "most processes (default: 512)",
        (text) => parseInteger(text, 1, 4_194_304),
      ),
    )
    .addOption(new Option("-t, --tty", "give it a terminal"))
    .addOption(new Option("-i, --stdin", "keep standard input open for attach"))
    .addOption(new Option("--dry-run", "ask which node would take it; start nothing"))
    .addOption(jsonOption())
    .argument("[args...]", "replaces the image's command (after --)")
    .action(async (args, options) => {
      const { spawn } = await import("./commands/spawn.ts");
      finish(await spawn(args, options, io));
    });
  client(parent.command("list")).alias("ls").description("list workloads")
    .addOption(jsonOption())
    .option("-q, --quiet", "ids only")
    .action(async (options) => {
      const { list } = await import("./commands/list.ts");
      finish(await list(options, io));
    });
  client(withId(parent.command("stop"))).description("stop a workload and remove every trace of it")
    .addOption(
      parsed(
        "--grace <ms>",
        "wait before SIGKILL (default: 5000)",
        (text) => parseInteger(text, 0, MAX_GRACE_MS),
      ),
    )
    .addOption(jsonOption())
    .action(async (id, options) => {
      const { stop } = await import("./commands/stop.ts");
      finish(await stop(id ?? options.id, options, io));
    });
  client(withId(parent.command("logs"))).description("print a workload's log")
    .option("-f, --follow", "go on as it grows")
    .addOption(parsed("-n, --tail <lines>", "only the last lines", (text) => parseInteger(text, 0, MAX_TAIL)))
    .addOption(jsonOption())
    .action(async (id, options) => {
      const { logs } = await import("./commands/logs.ts");
      finish(await logs(id ?? options.id, options, io));
    });
}

function addSessionCommands(program: Command, io: Io, finish: Finish): void {
  client(withId(program.command("inspect"))).description("print everything known about a workload, as JSON")
    .addOption(jsonOption())
    .action(async (id, options) => {
      const { inspect } = await import("./commands/inspect.ts");
      finish(await inspect(id ?? options.id, options, io));
    });
  client(withId(program.command("attach"))).description("connect to a workload's input and output")
    .option("--no-stdin", "do not connect standard input")
    .option("--detach-keys <keys>", "key sequence that detaches", "ctrl-p,ctrl-q")
    .option("--no-sig-proxy", "do not pass signals on")
    .addOption(
      parsed("-n, --tail <lines>", "show the last lines first", (text) => parseInteger(text, 0, MAX_TAIL)),
    )
    .action(async (id, options) => {
      const { attach } = await import("./commands/attach.ts");
      finish(await attach(id ?? options.id, options, io));
    });
  client(program.command("exec")).description("run a command inside a workload")
    .addOption(parsed("--id <id>", "the workload, instead of the first argument", parseWorkloadId))
    .option("-i, --interactive", "connect standard input")
    .option("-t, --tty", "give it a terminal")
    .addOption(collected("-e, --env <K=V>", "environment variable", parseEnvEntry))
    .option("-u, --user <user[:group]>", "run as, by name or number")
    .option("-w, --workdir <dir>", "working directory")
    .option("--detach-keys <keys>", "key sequence that detaches", "ctrl-p,ctrl-q")
    .passThroughOptions()
    .argument("[words...]", "ID COMMAND [ARGUMENT…]")
    .usage("[options] ID COMMAND [ARGUMENT…]")
    .action(async (words, options) => {
      const { exec } = await import("./commands/exec.ts");
      finish(await exec(words, options, io));
    });
}

function addImageCommands(program: Command, io: Io, finish: Finish): void {
  const image = program.command("image").description("pull, load, list and remove images");
  client(image.command("pull")).description("pull an image from its registry")
    .addArgument(new Argument("<ref>", "image").argParser((text: string) => text))
    .addOption(jsonOption())
    .action(async (ref, options) => {
      const { imagePull } = await import("./commands/image.ts");
      finish(await imagePull(ref, options, io));
    });
  client(image.command("load")).description("load a docker-archive or OCI-layout tar")
    .argument("[file]", "the archive; standard input without it")
    .addOption(jsonOption())
    .action(async (file, options) => {
      const { imageLoad } = await import("./commands/image.ts");
      finish(await imageLoad(file, options, io));
    });
  client(image.command("list")).alias("ls").description("list the node's images")
    .addOption(jsonOption())
    .action(async (options) => {
      const { imageList } = await import("./commands/image.ts");
      finish(await imageList(options, io));
    });
  client(image.command("rm")).description("remove an image")
    .argument("<ref>", "image")
    .addOption(jsonOption())
    .action(async (ref, options) => {
      const { imageRemove } = await import("./commands/image.ts");
      finish(await imageRemove(ref, options, io));
    });
}

function addPolicyCommands(program: Command, io: Io, finish: Finish): void {
  const policy = program.command("policy").description("check policies, and ask why a node is chosen or not");
  policy.command("check").description("check policy files; nothing is asked of an agent")
    .argument("<files...>", "policy files")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (files, options) => {
      const { policyCheck } = await import("./commands/policy.ts");
      finish(await policyCheck(files, options, io));
    });
  client(policy.command("show")).description("print the policy that an agent goes by")
    .addOption(jsonOption())
    .action(async (options) => {
      const { policyShow } = await import("./commands/policy.ts");
      finish(await policyShow(options, io));
    });
  client(policy.command("explain"))
    .description("show which nodes would take a spawn, and why the others would not; nothing is started")
    .argument("[file]", "policy file, or the name of a policy on the agent; the cluster's alone without it")
    .addOption(parsed("--image-ref <ref>", "image", parseImageRef))
    .addOption(parsed("--image <ref>", "the same as --image-ref", parseImageRef))
    .addOption(parsed("--cpu <count>", "vCPUs (default: 1)", parseMilliCpus))
    .addOption(parsed("--mem <MiB>", "memory (default: 512)", parseMemoryMib))
    .addOption(
      accumulated(
        "--ports <host:container,…>",
        "host ports",
        (text, previous: Map<number, number> | undefined) => parsePorts(text, previous),
      ),
    )
    .addOption(collected("--env <K=V>", "environment variable; only its name is looked at", parseEnvEntry))
    .addOption(collected("--label <K=V>", "label", parsePair))
    .addOption(new Option("--runtime <name>", "runtime (default: runc)"))
    .addOption(new Option("--alone", "leave the cluster's policy out: as if the file were it"))
    .addOption(jsonOption())
    .action(async (file, options) => {
      const { policyExplain } = await import("./commands/policy.ts");
      finish(await policyExplain(file, options, io));
    });
}

/** Adds what every client command takes. */
function client<Args extends unknown[], Opts extends Record<string, unknown>>(
  command: Command<Args, Opts, Record<string, unknown>>,
) {
  return command
    .addOption(configOption())
    .addOption(grpcBindAddrOption())
    .addOption(apiOption())
    .addOption(apiCaOption())
    .addOption(tokenOption())
    .addOption(dataDirOption());
}

/** The id as argument or, as in the original, by `--id`. */
function withId(command: Command) {
  return command.argument("[id]", "id or name")
    .addOption(parsed("--id <id>", "id or name, instead of the argument", parseWorkloadId));
}
