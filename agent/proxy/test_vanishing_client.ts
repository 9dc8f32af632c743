// A client that a test kills while its requests are in flight. Arguments: port, file of the certificate.
const [port, certFile] = Deno.args;
const caCerts = [await Deno.readTextFile(certFile)];
const request = new TextEncoder().encode("GET /gone HTTP/1.1\r\nHost: app.test\r\n\r\n");
let answers = 0;
for (let n = 0; n < 32; n++) {
  const tcp = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  const conn = await Deno.startTls(tcp, { hostname: "localhost", caCerts });
  (async () => {
    const buffer = new Uint8Array(16 * 1024);
    for (;;) {
      await conn.write(request);
      await conn.read(buffer);
      if (++answers === 1_000) console.log("enough");
    }
  })();
}
