import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";

/** A call that has ended. */
export interface CallOutcome {
  /** Service and method; `-` where it was refused before it was one. */
  method: string;
  /** `ok`, or what the protocols call the error: `resource_exhausted`, … */
  code: string;
}

/** Tells how every call ended: a stream when it ends, or when its caller leaves. */
export function countCalls(count: (outcome: CallOutcome) => void): Interceptor {
  return (next) => async (request) => {
    const method = `${request.service.typeName.split(".").at(-1)}/${request.method.name}`;
    const ended = (code: string) => count({ method, code });
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: watched(response.message, ended) };
      ended("ok");
      return response;
    } catch (error) {
      ended(codeName(ConnectError.from(error).code));
      throw error;
    }
  };
}

/** As Connect spells it on the wire. */
export function codeName(code: Code): string {
  return Code[code].replace(/(?!^)[A-Z]/g, "_$&").toLowerCase();
}

async function* watched<T>(messages: AsyncIterable<T>, ended: (code: string) => void): AsyncGenerator<T> {
  let code = codeName(Code.Canceled);
  try {
    yield* messages;
    code = "ok";
  } catch (error) {
    code = codeName(ConnectError.from(error).code);
    throw error;
  } finally {
    ended(code);
  }
}
