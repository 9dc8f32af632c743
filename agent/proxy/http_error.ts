/** A message the proxy refuses or cannot serve: the status to answer and a short reason for the body. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  constructor(readonly status: number, reason: string, options?: ErrorOptions) {
    super(reason, options);
  }
}
