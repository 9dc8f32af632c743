/** Writes a self-signed certificate and its key into `dir`, replacing what is there. */
export async function writeCertificate(
  dir: string,
  name: string,
): Promise<{ certFile: string; keyFile: string }> {
  const certFile = `${dir}/cert.pem`, keyFile = `${dir}/key.pem`;
  const { success, stderr } = await new Deno.Command("openssl", {
    args: [
      ...[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
      ],
      ...["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:*.test,DNS:localhost,IP:127.0.0.1"],
      ...[
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        `${keyFile}.new`,
        "-out",
        `${certFile}.new`,
      ],
    ],
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(`Cannot make a certificate: ${new TextDecoder().decode(stderr)}`);
  await Deno.rename(`${certFile}.new`, certFile);
  await Deno.rename(`${keyFile}.new`, keyFile);
  return { certFile, keyFile };
}
