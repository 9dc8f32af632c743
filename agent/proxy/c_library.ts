/** Of glibc, and of musl. */
const C_LIBRARIES = ["libc.so.6", "libc.so"];

/** Opens the C library for these functions; close it when done. Throws an Error when it is not to be had. */
export function openCLibrary<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S> {
  let failure: unknown;
  for (const name of C_LIBRARIES) {
    try {
      return Deno.dlopen(name, symbols);
    } catch (error) {
      failure = error;
    }
  }
  throw new Error("Cannot open the C library", { cause: failure });
}
