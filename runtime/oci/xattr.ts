import { RuntimeError } from "../errors.ts";

const SYMBOLS = {
  lgetxattr: { parameters: ["buffer", "buffer", "buffer", "usize"], result: "isize" },
} as const;

/** overlayfs' mark on a directory that hides those of the same name in the layers below. */
const OPAQUE_ATTRIBUTES = ["trusted.overlay.opaque", "user.overlay.opaque"];

/**
 * Extended attributes, which Deno has no call for. Make one and keep it: what `dlopen` makes of a function stays in the
 * program for good, also when the library is closed.
 */
export class Xattr implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;

  /** Throws `precondition` when there is no glibc, or no right to call it. */
  constructor() {
    try {
      this.#library = Deno.dlopen("libc.so.6", SYMBOLS);
    } catch (error) {
      throw new RuntimeError("precondition", `Cannot load "libc.so.6": ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** Whether a directory of a layer hides the layers below. */
  isOpaque(dir: string): boolean {
    const value = new Uint8Array(1);
    return OPAQUE_ATTRIBUTES.some((name) => {
      const length = this.#library.symbols.lgetxattr(cString(dir), cString(name), value, 1n);
      return length === 1n && value[0] === "y".charCodeAt(0);
    });
  }

  [Symbol.dispose](): void {
    this.#library.close();
  }
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
