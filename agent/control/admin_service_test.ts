import assert from "node:assert/strict";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { ClusterAdminService } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { translateErrors } from "../api/errors.ts";
import { MAX_JOIN_ADDRESSES } from "../membership/join_address.ts";
import { type AdminParts, adminService, MAX_QUERY_MS } from "./admin_service.ts";

/** The service as an operator calls it, in front of a membership that notes what it is asked for. */
function start() {
  const joins: string[][] = [], timeouts: (number | undefined)[] = [];
  const membership = {
    join(addresses: string[]) {
      joins.push(addresses);
      return Promise.resolve(addresses.length);
    },
    ask(_name: string, { timeoutMs }: { timeoutMs?: number }) {
      timeouts.push(timeoutMs);
      return Promise.resolve();
    },
  };
  const parts = { membership, operations: {}, leave() {} } as unknown as AdminParts;
  const transport = createRouterTransport(
    ({ service }) => void service(ClusterAdminService, adminService(parts)),
    { router: { interceptors: [translateErrors(silentLog)] } },
  );
  return { joins, timeouts, client: createClient(ClusterAdminService, transport) };
}

Deno.test("rule 8: no more addresses are joined by one call than the limit", async () => {
  const { client, joins } = start();
  const addresses = Array.from({ length: MAX_JOIN_ADDRESSES + 1 }, (_, i) => `n${i}:7946`);
  await assert.rejects(
    client.join({ addresses }),
    /\[invalid_argument\] Cannot join: 65 addresses are given, at most 64 are taken$/,
  );
  assert.deepEqual(joins, []);
  assert.equal((await client.join({ addresses: addresses.slice(1) })).joined, MAX_JOIN_ADDRESSES);
});

Deno.test("rule 8: a query is open for no longer than the limit", async () => {
  const { client, timeouts } = start();
  const ask = async (timeoutMs: number) => {
    for await (const _ of client.query({ name: "ask", timeoutMs }));
  };
  await assert.rejects(
    ask(MAX_QUERY_MS + 1),
    /\[invalid_argument\] Cannot accept timeout_ms "600001": at most 600000$/,
  );
  await ask(MAX_QUERY_MS);
  assert.deepEqual(timeouts, [MAX_QUERY_MS]);
});
