import assert from "node:assert/strict";
import { CertificateFiles } from "./certificate.ts";
import { writeCertificate } from "./test_certificate.ts";

const POLL_MS = 5;

Deno.test("certificate files that take longer to read than the pause between two looks are read one look after the other", async () => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const { certFile, keyFile } = await writeCertificate(dir, "first");
  const changed = Promise.withResolvers<string>();
  const refused: string[] = [];
  using _files = await CertificateFiles.open({
    certFile,
    keyFile,
    pollMs: POLL_MS,
    onChange: ({ cert }) => changed.resolve(cert),
    onRefused: ({ message }) => refused.push(message),
  });
  // A pipe is read when somebody writes to it.
  await new Deno.Command("mkfifo", { args: [`${dir}/pipe`] }).output();
  await Deno.rename(`${dir}/pipe`, certFile);
  for (let look = 0; look < 5; look++) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  const pipe = await Deno.open(certFile, { write: true });
  await writeCertificate(dir, "second");
  const second = await Deno.readFile(certFile);
  await pipe.write(second);
  pipe.close();
  assert.equal(await changed.promise, new TextDecoder().decode(second));
  assert.deepEqual(refused, []);
});
