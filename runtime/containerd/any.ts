import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { create, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";

/** Type URL of an OCI runtime spec in `Container.spec`. */
export const RUNTIME_SPEC_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/** Type URL of an OCI process in `ExecProcessRequest.spec`. */
export const RUNTIME_PROCESS_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/** An `Any` that holds JSON, as containerd does for OCI types. */
export function anyJson(typeUrl: string, value: unknown): Any {
  return create(AnySchema, { typeUrl, value: new TextEncoder().encode(JSON.stringify(value)) });
}

/** An `Any` with a protobuf message under its bare name: containerd knows no `type.googleapis.com/` prefix. */
export function anyMessage<T extends DescMessage>(schema: T, message: MessageShape<T>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, message) });
}
