import type http2 from "node:http2";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { readWhole } from "../../runtime/whole_stream.ts";

/** Connections whose streams {@linkcode readWhole} reads. */
export class WholeStreams extends Http2SessionManager {
  override async request(
    ...request: Parameters<Http2SessionManager["request"]>
  ): Promise<http2.ClientHttp2Stream> {
    return readWhole(await super.request(...request));
  }
}
