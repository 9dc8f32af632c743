import assert from "node:assert/strict";
import { TestHost } from "../../tests/support/host.ts";
import { type Log, silentLog } from "../log.ts";
import type { RunCommand } from "./command.ts";
import { GuestNetworks } from "./network.ts";

const CNI_PATH = ["/usr/lib/cni"];
/** The guests' subnet. */
export const SUBNET = "192.168.127.0/24";
/** Address of the outside machine. */
export const OUTSIDE = "10.91.0.2";
/** The cloud metadata address, which the outside machine has too. */
export const METADATA = "169.254.169.254";

/** A host with an uplink to an outside machine that has the metadata address too, and guests' networks on it. */
export class Site implements AsyncDisposable {
  private constructor(
    readonly host: TestHost,
    readonly outside: TestHost,
    readonly dir: string,
    readonly suffix: string,
  ) {}

  static async create(): Promise<Site> {
    const host = await TestHost.create();
    const outside = await TestHost.create();
    const { peerInterface } = await host.connect(outside, { address: "10.91.0.1", peerAddress: OUTSIDE });
    await outside.run("ip", "address", "add", `${METADATA}/32`, "dev", peerInterface);
    const dir = await Deno.makeTempDir({ prefix: "hc-net-" });
    return new Site(host, outside, dir, crypto.randomUUID().slice(0, 8));
  }

  networks(
    options: { run?: RunCommand; cniPath?: readonly string[]; subnet?: string; log?: Log } = {},
  ): GuestNetworks {
    return new GuestNetworks({
      dataDir: this.dir,
      subnet: SUBNET,
      cniPath: CNI_PATH,
      log: silentLog,
      run: this.host.runCommand,
      writeSysctl: this.host.writeSysctl,
      ...options,
    });
  }

  /** An id no other test uses: netns names are the machine's. */
  id(name: string): string {
    return `${name}-${this.suffix}`;
  }

  /** What is left of guests on the host; base chains of the firewall plugin stay by design. */
  async traces(): Promise<Record<string, unknown>> {
    const files = async (dir: string) => {
      try {
        return (await Array.fromAsync(Deno.readDir(dir))).map((entry) => entry.name)
          .filter((name) => /^\d+\.|json/.test(name));
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return [];
        throw error;
      }
    };
    const rules = (await this.host.run("iptables-save")).stdout.split("\n");
    const table = (await this.host.run("nft", "list", "ruleset")).stdout;
    return {
      veths:
        (await this.host.run("ip", "-o", "link")).stdout.split("\n").filter((line) => /: veth/.test(line))
          .length,
      netns: (await this.host.guestNetns()).length,
      leases: await files(`${this.dir}/network/ipam/hypercore`),
      records: await files(`${this.dir}/network/guests`),
      rules: rules.filter((line) => line.includes("192.168.127.")),
      elements: [...table.matchAll(/"veth[^"]*"/g)].length,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await this.outside[Symbol.asyncDispose]();
    await Deno.remove(this.dir, { recursive: true });
  }
}

/** Seconds after which an address counts as out of reach, where that is what is to be seen. */
const BRIEF_S = 0.7;
/** Seconds that an answer which is to come may take, on a machine that is busy with other tests. */
const PATIENT_S = 60;

/** An HTTP server that is to be reached or not. */
export interface Target {
  host: string;
  /** 8080 by default. */
  port?: number;
  /** What the connection is, for the message when it fails. */
  what?: string;
}

/** Asserts that an HTTP server answers to a client inside a netns. */
export async function assertReaches(netns: string, target: Target): Promise<void> {
  assert.equal(await answers(netns, target, PATIENT_S), true, target.what ?? target.host);
}

/** Asserts that an HTTP server is out of reach for a client inside a netns. */
export async function assertCutOff(netns: string, target: Target): Promise<void> {
  assert.equal(await answers(netns, target, BRIEF_S), false, target.what ?? target.host);
}

/** `connectS` is how long the connection, without its answer, may take to come about. */
async function answers(netns: string, { host, port = 8080 }: Target, connectS: number): Promise<boolean> {
  const seconds = ["--connect-timeout", String(connectS), "-m", String(PATIENT_S)];
  const args = [`--net=${netns}`, "curl", "-sg", ...seconds, `http://${host}:${port}/`];
  return (await new Deno.Command("nsenter", { args, stdout: "null", stderr: "null" }).output()).code === 0;
}

/** Waits until something holds; throws when it does not in time. */
export async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + PATIENT_S * 1000;
  while (!await holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${PATIENT_S} s: ${what}`);
  }
}

/** An HTTP server on every address of a network namespace that answers with the caller's address. */
export async function serve(netns: string, port = 8080): Promise<AsyncDisposable> {
  const script = `Deno.serve({ hostname: '::', port: ${port}, onListen: () => console.log('up') }, ` +
    "(_request, info) => new Response(info.remoteAddr.hostname))";
  const child = new Deno.Command("nsenter", {
    args: [`--net=${netns}`, Deno.execPath(), "eval", "--no-lock", "--no-config", script],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  assert.equal(done, false, "the test's HTTP server must start");
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
    },
  };
}
