import { RuntimeError } from "../errors.ts";

/** What an image says about the process it is for. */
export interface ImageProcess {
  entrypoint: readonly string[];
  cmd: readonly string[];
  env: readonly string[];
  /** `user[:group]`; empty means root. */
  user: string;
  workingDir: string;
}

/**
 * Checks the `config` object of an image configuration (OCI image spec 1.1, or Docker's schema 2), which anyone may
 * have written. Throws `invalid` that names the image and the field.
 */
export function parseImageConfig(image: string, config: unknown): ImageProcess {
  const fields = config ?? {};
  if (!isObject(fields)) throw invalid(image, "it is not a JSON object");
  const strings = (name: string): string[] => {
    const value = fields[name] ?? [];
    if (Array.isArray(value) && value.every((item) => typeof item === "string" && !item.includes("\0"))) {
      return value;
    }
    throw invalid(image, `${name} is not a list of strings`);
  };
  const string = (name: string): string => {
    const value = fields[name] ?? "";
    if (typeof value === "string" && !value.includes("\0")) return value;
    throw invalid(image, `${name} is not a string`);
  };
  return {
    entrypoint: strings("Entrypoint"),
    cmd: strings("Cmd"),
    env: strings("Env"),
    user: string("User"),
    workingDir: string("WorkingDir"),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(image: string, reason: string): RuntimeError {
  return new RuntimeError("invalid", `Cannot use configuration of image "${image}": ${reason}`);
}
