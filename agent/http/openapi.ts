const CONNECT_PREFIX = "/cluster.services.api.ClusterService";

/**
 * The OpenAPI 3.1 description of the plain HTTP API, and of the same four calls as Connect answers them on the API
 * port. Both are described in one document; the `servers` of a path tell the ports apart.
 */
export function openApiDocument(options: { version: string }): Record<string, unknown> {
  return {
    openapi: "3.1.0",
    info: {
      title: "Hypercore agent",
      version: options.version,
      description: "Spawns, stops and lists containers, and reads their logs.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "http://127.0.0.1:8001", description: "HTTP API of the agent on this machine" }],
    security: [{ token: [] }],
    paths: { ...httpPaths(), ...connectPaths() },
    components: {
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "The token in the agent's data dir" },
      },
      schemas: schemas(),
    },
  };
}

function httpPaths(): Record<string, unknown> {
  const id = {
    name: "id",
    in: "query",
    required: true,
    description: "Id or name",
    schema: { type: "string" },
  };
  const tail = {
    name: "tail",
    in: "query",
    required: false,
    description: "Only the last lines",
    schema: { type: "integer", minimum: 0 },
  };
  const open = { security: [] };
  return {
    "/spawn": {
      post: operation("spawn", "Spawn a container", {
        requestBody: jsonBody("SpawnRequest"),
        responses: answers(wrapped(ref("SpawnResponse")), ["400", "401", "403", "413", "415"]),
      }),
    },
    "/stop": {
      post: operation("stop", "Stop and remove a container", {
        parameters: [id],
        responses: answers(wrapped(ref("Node")), ["400", "401", "403"]),
      }),
      get: operation("stopByGet", "The same as POST", {
        parameters: [id],
        responses: answers(wrapped(ref("Node")), ["400", "401", "403"]),
      }),
      delete: operation("stopByDelete", "The same as POST", {
        parameters: [id],
        responses: answers(wrapped(ref("Node")), ["400", "401", "403"]),
      }),
    },
    "/list": {
      get: operation("list", "What runs, by node", {
        responses: answers(wrapped(ref("NodesState")), ["401", "403"]),
      }),
    },
    "/logs": {
      get: operation("logs", "The log of a container", {
        parameters: [id, tail],
        responses: answers(wrapped({ type: "string" }), ["400", "401", "403"]),
      }),
    },
    "/healthz": { get: operation("healthz", "The process lives", { ...open, responses: text("200") }) },
    "/readyz": {
      get: operation("readyz", "The node can take work", { ...open, responses: text("200", "503") }),
    },
    "/metrics": {
      get: operation("metrics", "Prometheus metrics; from loopback without a token", {
        security: [{}, { token: [] }],
        responses: { ...text("200"), "401": errorAnswer },
      }),
    },
    "/openapi.json": {
      get: operation("openapi", "This document", {
        responses: {
          "200": { description: "OK", content: { "application/json": { schema: { type: "object" } } } },
        },
      }),
    },
  };
}

function connectPaths(): Record<string, unknown> {
  const call = (name: string, request: string, response: string) => ({
    [`${CONNECT_PREFIX}/${name}`]: {
      servers: [{ url: "http://127.0.0.1:8000", description: "API port (Connect; gRPC and gRPC-Web too)" }],
      post: operation(`connect${name}`, `${name} by Connect`, {
        requestBody: jsonBody(request),
        responses: {
          "200": { description: "OK", content: { "application/json": { schema: ref(response) } } },
          default: {
            description: "Refused or failed",
            content: { "application/json": { schema: ref("ConnectError") } },
          },
        },
      }),
    },
  });
  return {
    ...call("Spawn", "SpawnRequest", "SpawnResponse"),
    ...call("Stop", "StopRequest", "Node"),
    ...call("List", "Empty", "ConnectNodesState"),
    ...call("Logs", "LogsRequest", "LogsResponse"),
  };
}

function schemas(): Record<string, unknown> {
  const string = { type: "string" };
  const uint32 = { type: "integer", minimum: 0, maximum: 4_294_967_295 };
  const workload = (named: (name: string) => string, long: Record<string, unknown>) =>
    object({
      id: string,
      [named("source_request")]: ref("SpawnRequest"),
      status: { enum: ["starting", "running", "backing-off", "stopping"] },
      generation: long,
      restarts: uint32,
      url: string,
      [named("created_at_ms")]: long,
      [named("started_at_ms")]: long,
      [named("exit_code")]: uint32,
      reason: string,
    });
  const states = (name: string) =>
    object({
      states: {
        type: "array",
        items: object({ node: ref("Node"), workloads: { type: "array", items: ref(name) } }),
      },
    });
  const camel = (name: string) => name.replace(/_(.)/g, (_all, letter: string) => letter.toUpperCase());
  return {
    SpawnRequest: {
      ...object({
        image_ref: { ...string, maxLength: 512 },
        cores: { ...uint32, default: 1, maximum: 4_096 },
        memory: { ...uint32, default: 512, description: "MiB" },
        ports: {
          type: "object",
          description: "Host port to container port",
          propertyNames: { pattern: "^[0-9]{1,5}$" },
          additionalProperties: { type: "integer", minimum: 1, maximum: 65_535 },
          maxProperties: 64,
        },
        dry_run: { type: "boolean" },
        env: {
          type: "array",
          items: string,
          maxItems: 1_024,
          description: "KEY=value; answers leave values out",
        },
        name: { ...string, pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
        runtime: object({
          name: string,
          options: { type: "object", additionalProperties: string },
          micro_vm: { type: "object" },
        }),
        policy: string,
        node: string,
        args: { type: "array", items: string, maxItems: 1_024 },
        tty: { type: "boolean" },
        stdin: { type: "boolean" },
        milli_cpus: uint32,
        pids_limit: uint32,
        labels: {
          type: "object",
          propertyNames: { pattern: "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$", maxLength: 128 },
          additionalProperties: { ...string, maxLength: 256 },
          maxProperties: 64,
        },
        policy_json: { ...string, description: "A policy as JSON text; excludes policy" },
      }),
      description: "Names may be written in camelCase too; an unknown one is refused.",
    },
    SpawnResponse: object({ id: string, url: string, node: string }),
    StopRequest: { ...object({ id: string, grace_ms: { ...uint32, maximum: 600_000 } }), required: ["id"] },
    LogsRequest: { ...object({ id: string, tail: uint32 }), required: ["id"] },
    LogsResponse: object({ logs: string }),
    Empty: object({}),
    Node: object({ id: string, ip: string }),
    WorkloadState: workload((name) => name, { type: "integer" }),
    NodesState: states("WorkloadState"),
    ConnectWorkloadState: workload(camel, { type: "string", pattern: "^[0-9]+$" }),
    ConnectNodesState: states("ConnectWorkloadState"),
    Error: { ...object({ error: string }), required: ["error"] },
    ConnectError: { ...object({ code: string, message: string }), required: ["code"] },
  };
}

function operation(
  operationId: string,
  summary: string,
  rest: Record<string, unknown>,
): Record<string, unknown> {
  return { operationId, summary, ...rest };
}

function object(properties: Record<string, unknown>): Record<string, unknown> {
  return { type: "object", properties };
}

function ref(name: string): Record<string, unknown> {
  return { $ref: `#/components/schemas/${name}` };
}

function jsonBody(name: string): Record<string, unknown> {
  return { required: true, content: { "application/json": { schema: ref(name) } } };
}

function wrapped(schema: Record<string, unknown>): Record<string, unknown> {
  return { type: "object", properties: { response: schema }, required: ["response"] };
}

const errorAnswer = {
  description: "Refused or failed; the reason in words",
  content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
};

function answers(schema: Record<string, unknown>, errors: readonly string[]): Record<string, unknown> {
  return {
    "200": { description: "OK", content: { "application/json": { schema } } },
    ...Object.fromEntries(errors.map((status) => [status, errorAnswer])),
  };
}

function text(...statuses: string[]): Record<string, unknown> {
  const answer = { description: "In words", content: { "text/plain": { schema: { type: "string" } } } };
  return Object.fromEntries(statuses.map((status) => [status, answer]));
}
