import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import { untilInterrupted } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { imageJson } from "../json.ts";
import type { ClientOptions } from "../options.ts";
import { parseImageRef } from "../parse/values.ts";
import { ProgressView } from "../progress.ts";
import { formatAge, formatBytes, formatTable } from "../table.ts";
import type { Image } from "../../proto/gen/hypercore/v1/image_pb.ts";

type ImageOptions = ClientOptions & { json?: true };

/** Bytes of an archive in one message. */
const LOAD_CHUNK_BYTES = 262_144;

/** `hypercore image pull REF`. */
export async function imagePull(given: string, options: ImageOptions, io: Io): Promise<number> {
  const imageRef = requireRef(given);
  const api = connectApi(options, io);
  using interrupt = untilInterrupted(io);
  const view = new ProgressView(io);
  let image: Image | undefined;
  try {
    for await (const { event } of api.images.pull({ imageRef }, { signal: interrupt.signal, timeoutMs: 0 })) {
      if (event.case === "progress") await view.update(event.value);
      if (event.case === "image") image = event.value;
    }
  } catch (error) {
    const action = `Cannot pull "${imageRef}"`;
    throw interrupt.error(action, () => apiError(action, api, error));
  } finally {
    await view.clear();
  }
  if (image === undefined) {
    throw new CommandError(`Cannot pull "${imageRef}": the agent's answer has no image`);
  }
  await io.out(options.json ? `${JSON.stringify(imageJson(image))}\n` : `${image.name} ${image.digest}\n`);
  return exitCode.ok;
}

/** `hypercore image load [FILE]`. */
export async function imageLoad(file: string | undefined, options: ImageOptions, io: Io): Promise<number> {
  if (file === undefined && io.stdinIsTerminal) {
    throw new UsageError("which archive? Give a file, or one on standard input");
  }
  const api = connectApi(options, io);
  using interrupt = untilInterrupted(io);
  const what = file ?? "standard input";
  const source = file === undefined ? io.stdin() : await openArchive(file);
  const { images } = await api.images.load(chunks(source), { signal: interrupt.signal, timeoutMs: 0 }).catch(
    (error) => {
      const action = `Cannot load "${what}"`;
      throw interrupt.error(action, () => apiError(action, api, error));
    },
  );
  await io.out(
    options.json
      ? `${JSON.stringify(images.map(imageJson))}\n`
      : images.map((image) => `${image.name} ${image.digest}\n`).join(""),
  );
  return exitCode.ok;
}

/** `hypercore image list`. */
export async function imageList(options: ImageOptions, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const { images } = await api.images.listImages({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError("Cannot list images", api, error);
  });
  const now = Date.now();
  await io.out(
    options.json ? `${JSON.stringify(images.map(imageJson), null, 2)}\n` : formatTable(
      ["NAME", "DIGEST", "PLATFORM", "SIZE", "AGE"],
      images.map((image) => [
        image.name,
        image.digest.slice(0, 19),
        image.platform,
        formatBytes(Number(image.sizeBytes)),
        formatAge(now - Number(image.createdAtMs)),
      ]),
    ),
  );
  return exitCode.ok;
}

/** `hypercore image rm REF`. */
export async function imageRemove(given: string, options: ImageOptions, io: Io): Promise<number> {
  const imageRef = requireRef(given);
  const api = connectApi(options, io);
  await api.images.removeImage({ imageRef }, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot remove "${imageRef}"`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify({ removed: imageRef })}\n` : `${imageRef}\n`);
  return exitCode.ok;
}

function requireRef(given: string): string {
  try {
    return parseImageRef(given);
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

async function openArchive(file: string): Promise<ReadableStream<Uint8Array>> {
  try {
    const opened = await Deno.open(file);
    if ((await opened.stat()).isDirectory) {
      opened.close();
      throw new Error("it is a directory (make a tar of it)");
    }
    return opened.readable;
  } catch (error) {
    throw new CommandError(`Cannot load "${file}": ${(error as Error).message}`, exitCode.failed, {
      cause: error,
    });
  }
}

async function* chunks(source: ReadableStream<Uint8Array>) {
  for await (const data of source) {
    for (let at = 0; at < data.length; at += LOAD_CHUNK_BYTES) {
      yield { data: data.subarray(at, at + LOAD_CHUNK_BYTES) };
    }
  }
}
