import { createPrivateKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  BasicConstraints,
  Certificate,
  Extension,
  Extensions,
  GeneralName,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from "@peculiar/asn1-x509";

const OID = {
  commonName: "2.5.4.3",
  subjectAlternativeName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
} as const;
/** Bytes of a serial number; nobody keeps a list of them. */
const SERIAL_BYTES = 16;

/** A self-signed certificate (X.509 v3, ECDSA P-256, no CA) for a name, and its key (PKCS#8), DER both. */
export function makeCertificate(
  options: { dnsName: string; notBefore: Date; notAfter: Date },
): { certificate: Uint8Array; key: Uint8Array } {
  const pair = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "der" },
    privateKeyEncoding: { type: "pkcs8", format: "der" },
  });
  const algorithm = new AlgorithmIdentifier({ algorithm: OID.ecdsaWithSha256 });
  const name = nameOf(options.dnsName);
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer: name,
    subject: name,
    validity: new Validity({ notBefore: options.notBefore, notAfter: options.notAfter }),
    subjectPublicKeyInfo: AsnConvert.parse(buffer(pair.publicKey), SubjectPublicKeyInfo),
    extensions: new Extensions([
      extension(OID.basicConstraints, new BasicConstraints({ cA: false }), { critical: true }),
      extension(
        OID.subjectAlternativeName,
        new SubjectAlternativeName([new GeneralName({ dNSName: options.dnsName })]),
      ),
    ]),
  });
  const key = createPrivateKey({ key: pair.privateKey, format: "der", type: "pkcs8" });
  const signature = sign("sha256", new Uint8Array(AsnConvert.serialize(tbsCertificate)), key);
  const certificate = AsnConvert.serialize(
    new Certificate({ tbsCertificate, signatureAlgorithm: algorithm, signatureValue: buffer(signature) }),
  );
  return { certificate: new Uint8Array(certificate), key: new Uint8Array(pair.privateKey) };
}

function extension(extnID: string, value: unknown, { critical = false } = {}): Extension {
  return new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });
}

function nameOf(commonName: string): Name {
  const value = new AttributeValue({ utf8String: commonName });
  return new Name([
    new RelativeDistinguishedName([new AttributeTypeAndValue({ type: OID.commonName, value })]),
  ]);
}

/** Positive, as RFC 5280 (section 4.1.2.2) wants it. */
function serialNumber(): ArrayBuffer {
  const bytes = new Uint8Array(randomBytes(SERIAL_BYTES));
  bytes[0] = bytes[0] & 0x7f | 0x40;
  return bytes.buffer;
}

function buffer(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}
