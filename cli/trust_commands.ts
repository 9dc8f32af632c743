import { type Command, Option } from "@commander-js/extra-typings";
import type { Io } from "./io.ts";
import { jsonOption, parsed } from "./options.ts";
import { parseInteger, parseWorkloadId } from "./parse/values.ts";
import type { Finish } from "./program.ts";

/** Adds what every client command takes. */
type AsClient = <T extends Command>(command: T) => Command;

/** Most proofs that can be asked for. */
const MAX_PROOFS = 4_096;

/** Who this node is, and what its workloads used. */
export function addTrustCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  addIdentityCommands(program, client, io, finish);
  addProofCommands(program, client, io, finish);
  addAttestCommand(program, client, io, finish);
  client(
    program.command("beacon").description(
      "how the nodes do: lines, prices and reputation, as this node sees them",
    ),
  )
    .addOption(jsonOption())
    .action(async (options) => {
      const { beacon } = await import("./commands/beacon.ts");
      finish(await beacon(options as never, io));
    });
}

function addIdentityCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  const identity = program.command("identity").description("who this node is: its key, and the change of it");
  const withFile = (command: Command) =>
    client(command)
      .option("--offline", "work on the file itself; for when no agent runs on it")
      .addOption(new Option("--identity-key <file>", "the file (default: identity.key in the data dir)"))
      .addOption(jsonOption());
  withFile(identity.command("show")).description("print the node's id and public key")
    .option("--pem", "print the public key alone, as openssl reads it")
    .action(async (options) => {
      const { identityShow } = await import("./commands/identity.ts");
      finish(await identityShow(options as never, io));
    });
  withFile(identity.command("rotate")).description(
    "give the node a new key, signed by the old one; its id stays",
  )
    .action(async (options) => {
      const { identityRotate } = await import("./commands/identity.ts");
      finish(await identityRotate(options as never, io));
    });
}

function addAttestCommand(program: Command, client: AsClient, io: Io, finish: Finish): void {
  const types = ["node-identity", "state-hash", "workload"] as const;
  client(
    program.command("attest").description("challenge a node: what it signs now is verified")
      .argument("[node]", "name or id; where the workload runs, when one is given")
      .addOption(new Option("--type <type>", "what it is to sign (default: node-identity)").choices(types))
      .addOption(
        parsed("--workload <id>", "id or name of a workload that it is to attest", parseWorkloadId),
      ) as never,
  ).addOption(jsonOption())
    .action(async (node, options) => {
      const { attest } = await import("./commands/attest.ts");
      finish(await attest(node as never, options as never, io));
    });
}

function addProofCommands(program: Command, client: AsClient, io: Io, finish: Finish): void {
  const proof = program.command("proof").description("what a workload used, as its node has proven it");
  const withId = (command: Command) =>
    client(
      command.argument("[id]", "id or name")
        .addOption(parsed("--id <id>", "id or name, instead of the argument", parseWorkloadId)) as never,
    ).addOption(jsonOption());
  withId(proof.command("show")).description("print the newest proof of a workload")
    .addOption(
      parsed("-n, --last <count>", "so many of the newest", (text) => parseInteger(text, 1, MAX_PROOFS)),
    )
    .action(async (id, options) => {
      const { proofShow } = await import("./commands/proof.ts");
      finish(await proofShow(id as never, options as never, io));
    });
  withId(proof.command("verify")).description(
    "verify the proofs of a workload, or an exported file without any agent",
  )
    .addOption(new Option("--file <file>", "an exported file; asks no agent"))
    .addOption(
      new Option("--public-key <key>", "with --file: key its node must have had, base64 or a PEM file"),
    )
    .addOption(new Option("--node-id <id>", "with --file: the node it must be of"))
    .addOption(new Option("--hash <hash>", "a proof with this hash must be among them"))
    .action(async (id, options) => {
      const { proofVerify } = await import("./commands/proof.ts");
      finish(await proofVerify(id as never, options as never, io));
    });
  withId(proof.command("export")).description("print all proofs of a workload with their node's identity")
    .addOption(new Option("-o, --output <file>", "write them to a new file instead"))
    .action(async (id, options) => {
      const { proofExport } = await import("./commands/proof.ts");
      finish(await proofExport(id as never, options as never, io));
    });
}
