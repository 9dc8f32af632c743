import { HOP_SERVER_NAME } from "../../../agent/proxy/hop/protocol.ts";

/** Proxies to compare with, each started on its own port in front of one upstream. */
export interface Peer extends AsyncDisposable {
  name: string;
  port: number;
  pid: number;
}

export interface PeerOptions {
  dir: string;
  port: number;
  upstreamPort: number;
  /** PEM files; absent means plain HTTP. */
  tls?: { certFile: string; keyFile: string };
}

/** A static nginx that serves `root`, one worker. */
export async function startUpstream(options: { dir: string; port: number; root: string }): Promise<Peer> {
  const server = `server { listen 127.0.0.1:${options.port} backlog=4096; root ${options.root}; }`;
  const { dir, port } = options;
  return await startNginx("upstream", { dir, port, http: `sendfile on; tcp_nopush on; ${server}` });
}

export async function startNginxProxy(options: PeerOptions): Promise<Peer> {
  const { dir, port, upstreamPort, tls } = options;
  const secure = tls ? `ssl_certificate ${tls.certFile}; ssl_certificate_key ${tls.keyFile};` : "";
  return await startNginx("nginx", {
    dir,
    port,
    http: `upstream app { server 127.0.0.1:${upstreamPort}; keepalive 256; keepalive_requests 100000000; }
     server { listen 127.0.0.1:${port} ${tls ? "ssl" : ""} backlog=4096; ${secure}
       location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; } }`,
  });
}

/** An address and a port, and PEM files where TLS is spoken there. */
export interface Endpoint {
  hostname: string;
  port: number;
  tls?: { certFile: string; keyFile: string };
}

/**
 * A node of two with nginx for a proxy: it serves clients at `front` from `upstream`, and so other nodes at `hop`; an upstream
 * with TLS is another such node, whose certificate is checked. As in the proxy's own hop, TLS is 1.3 and connections are kept.
 */
export async function startNginxNode(
  { dir, front, hop, upstream }: { dir: string; front: Endpoint; hop?: Endpoint; upstream: Endpoint },
): Promise<Peer> {
  const listen = ({ hostname, port, tls }: Endpoint) =>
    `listen ${hostname}:${port} ${tls ? "ssl" : ""} backlog=4096; ` +
    (tls
      ? `ssl_certificate ${tls.certFile}; ssl_certificate_key ${tls.keyFile}; ssl_protocols TLSv1.3;`
      : "");
  const { tls } = upstream;
  const pass = tls
    ? `proxy_pass https://app; proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on;
       proxy_ssl_trusted_certificate ${tls.certFile}; proxy_ssl_name ${HOP_SERVER_NAME};`
    : "proxy_pass http://app;";
  const servers = [front, ...(hop ? [hop] : [])].map((endpoint) =>
    `server { ${listen(endpoint)} location / { ${pass} proxy_http_version 1.1; proxy_set_header Connection "";
       proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; } }`
  );
  const { hostname, port } = front;
  return await startNginx("nginx", {
    dir,
    port,
    hostname,
    http: `upstream app { server ${upstream.hostname}:${upstream.port}; keepalive 256;
      keepalive_requests 100000000; } ${servers.join(" ")}`,
  });
}

export async function startHaproxy(options: PeerOptions): Promise<Peer> {
  const { dir, port, upstreamPort, tls } = options;
  if (tls) {
    const pem = await Deno.readTextFile(tls.certFile) + await Deno.readTextFile(tls.keyFile);
    await Deno.writeTextFile(`${dir}/haproxy.pem`, pem);
  }
  const config = `${dir}/haproxy-${port}.cfg`;
  await Deno.writeTextFile(
    config,
    `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend f
  bind 127.0.0.1:${port} ${tls ? `ssl crt ${dir}/haproxy.pem` : ""}
  default_backend b
backend b
  server s 127.0.0.1:${upstreamPort}
`,
  );
  return await start("HAProxy", ["/usr/sbin/haproxy", "-db", "-f", config], port);
}

export async function startCaddy(options: PeerOptions & { binary: string }): Promise<Peer> {
  const { dir, port, upstreamPort, tls, binary } = options;
  const config = `${dir}/caddy-${port}.json`;
  const server = {
    listen: [`127.0.0.1:${port}`],
    routes: [{
      handle: [{ handler: "reverse_proxy", upstreams: [{ dial: `127.0.0.1:${upstreamPort}` }] }],
    }],
    automatic_https: { disable: true },
    // For clients without a server name; wrk sends the IP address, which the certificate names too.
    ...(tls ? { tls_connection_policies: [{ default_sni: "app.test" }] } : {}),
  };
  const certificates = tls
    ? { tls: { certificates: { load_files: [{ certificate: tls.certFile, key: tls.keyFile }] } } }
    : {};
  await Deno.writeTextFile(
    config,
    JSON.stringify({
      admin: { disabled: true },
      logging: { logs: { default: { level: "ERROR" } } },
      apps: { http: { servers: { s: server } }, ...certificates },
    }),
  );
  return await start("Caddy", [binary, "run", "--config", config], port, {
    env: { HOME: dir, XDG_DATA_HOME: dir },
  });
}

/** Runs a command and waits until its port answers. */
export async function start(
  name: string,
  command: string[],
  port: number,
  { env = {}, hostname = "127.0.0.1" }: { env?: Record<string, string>; hostname?: string } = {},
): Promise<Peer> {
  // The upstream stays with the client, on the bench's own processors.
  const processor = name === "upstream" ? undefined : Deno.env.get("PROXY_CPU");
  const [program, ...args] = processor === undefined ? command : ["taskset", "-c", processor, ...command];
  const child = new Deno.Command(program, {
    args,
    env,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const peer: Peer = {
    name,
    port,
    pid: child.pid,
    async [Symbol.asyncDispose]() {
      try {
        child.kill("SIGTERM");
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // it has ended by itself
      }
      await child.status;
    },
  };
  const until = performance.now() + 10_000;
  for (;;) {
    try {
      (await Deno.connect({ hostname, port })).close();
      return peer;
    } catch (error) {
      if (performance.now() > until) {
        await peer[Symbol.asyncDispose]();
        throw new Error(`Cannot start "${name}": port ${port} does not answer`, { cause: error });
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function startNginx(
  name: string,
  { dir, port, hostname = "127.0.0.1", http }: {
    dir: string;
    port: number;
    hostname?: string;
    /** What stands in the configuration's http block. */
    http: string;
  },
): Promise<Peer> {
  const config = `${dir}/nginx-${port}.conf`;
  await Deno.writeTextFile(
    config,
    `daemon off; master_process off; pid ${dir}/nginx-${port}.pid; error_log /dev/null; worker_rlimit_nofile 8192;
     events { worker_connections 4096; }
     http { access_log off; keepalive_requests 100000000; client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy;
       fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s; ${http} }`,
  );
  return await start(name, ["/usr/sbin/nginx", "-e", "/dev/null", "-c", config], port, { hostname });
}
