/** How a node says in an answer of its own that it could not serve a hop; the field's value. */
export type HopRefusal = "not-here" | "unreachable";

export interface HttpErrorOptions extends ErrorOptions {
  /** Nothing of the request can have had an effect: it may be sent elsewhere, whatever its method. */
  unsent?: boolean;
  /** Told to the node that sent the request here. */
  hop?: HopRefusal;
}

/** A message the proxy refuses or cannot serve: the status to answer and a short reason for the body. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly unsent: boolean;
  readonly hop?: HopRefusal;

  constructor(readonly status: number, reason: string, options: HttpErrorOptions = {}) {
    super(reason, options);
    this.unsent = options.unsent ?? false;
    this.hop = options.hop ?? (this.unsent ? "unreachable" : undefined);
  }
}
