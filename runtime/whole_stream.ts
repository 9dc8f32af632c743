import type http2 from "node:http2";

/**
 * Lets an HTTP/2 stream be read to its end however slowly. To the iterator that streams have, one that ends and closes
 * while its reader is busy looks, on Deno, as if it was closed too early.
 */
export function readWhole<S extends http2.ClientHttp2Stream>(stream: S): S {
  stream[Symbol.asyncIterator] = () => chunksOf(stream);
  return stream;
}

function chunksOf(stream: http2.ClientHttp2Stream): NodeJS.AsyncIterator<unknown> {
  let [isEnded, isClosed] = [stream.readableEnded, stream.closed && stream.destroyed];
  let error: Error | undefined;
  let wake = () => {};
  stream.on("readable", () => wake());
  stream.once("end", () => {
    isEnded = true;
    wake();
  });
  stream.once("error", (reason: Error) => {
    error = reason;
    wake();
  });
  stream.once("close", () => {
    isClosed = true;
    wake();
  });
  const done = { value: undefined, done: true } as const;
  return {
    async next() {
      for (;;) {
        const chunk: unknown = isEnded ? null : stream.read();
        if (chunk !== null) return { value: chunk, done: false };
        if (error !== undefined) throw error;
        if (isEnded) return done;
        if (isClosed) {
          throw Object.assign(new Error("Premature close"), { code: "ERR_STREAM_PREMATURE_CLOSE" });
        }
        await new Promise<void>((resolve) => wake = resolve);
      }
    },
    return() {
      stream.destroy();
      return Promise.resolve(done);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(void stream.destroy()),
  };
}
