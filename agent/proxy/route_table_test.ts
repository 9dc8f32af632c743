import assert from "node:assert/strict";
import { parseAuthority } from "./authority.ts";
import type { Route } from "./mod.ts";
import { RouteTable } from "./route_table.ts";

function route(id: string, hostPort: number, aliases: string[] = []): Route {
  return { id, hostPort, aliases, upstream: { kind: "tcp", hostname: id, port: 80 } };
}

function find(table: RouteTable, hostPort: number, host: string): string | undefined {
  return table.lookup(hostPort, parseAuthority(host))?.upstream.hostname;
}

Deno.test("a route is found by port and first label, whatever the case", () => {
  const table = new RouteTable([route("a", 1, ["web"]), route("b", 2)]);
  assert.equal(find(table, 1, "A.example.com"), "a");
  assert.equal(find(table, 1, "web.example.com:1"), "a");
  assert.equal(find(table, 2, "a.example.com"), undefined);
  assert.equal(find(table, 2, "b"), "b");
  assert.equal(find(table, 3, "b"), undefined);
});

Deno.test("an id wins over an alias, the lower id over the higher, in whatever order they come", () => {
  const routes = [route("z", 1, ["a", "w"]), route("a", 1), route("b", 1, ["w"])];
  for (const order of [routes, routes.toReversed()]) {
    const table = new RouteTable(order);
    assert.equal(find(table, 1, "a.x"), "a");
    assert.equal(find(table, 1, "w.x"), "b");
  }
});

Deno.test("a base domain leaves out every other one", () => {
  const table = new RouteTable([route("a", 1)], "example.com");
  assert.equal(find(table, 1, "a.example.com"), "a");
  assert.equal(find(table, 1, "a"), "a");
  assert.equal(find(table, 1, "a.example.org"), undefined);
  assert.equal(find(table, 1, "a.b.example.com"), undefined);
});

Deno.test("names that objects inherit are no routes", () => {
  assert.equal(find(new RouteTable([route("a", 1)]), 1, "constructor.x"), undefined);
});

Deno.test("rule 7a: a hop finds the container of this node by its id, and neither by an alias nor on another node", () => {
  const peer = { kind: "peer" as const, node: "b", hostname: "b", port: 7947, fingerprint: "" };
  const local = { kind: "tcp" as const, hostname: "c", port: 80 };
  const table = new RouteTable([
    route("Here", 1, ["web"]),
    { ...route("there", 1), upstream: peer },
    { ...route("moving", 1), upstream: peer, fallbacks: [peer, local] },
  ]);
  assert.equal(table.lookupLocal(1, "here")?.hostname, "Here");
  assert.equal(table.lookupLocal(1, "web"), undefined);
  assert.equal(table.lookupLocal(2, "here"), undefined);
  assert.equal(table.lookupLocal(1, "there"), undefined);
  assert.equal(table.lookupLocal(1, "moving"), local);
});
